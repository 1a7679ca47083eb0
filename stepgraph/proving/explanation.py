"""Why a node that mixes steps, or rounding, keeps a model from streaming: sentences for its owner. Does no analysis."""

import onnx

from stepgraph.graphs.labels import label
from stepgraph.graphs.sliding import SLIDING

ADVICE = (
    "Only recurrent cells may carry anything from step to step without a bound; let the rest of the network see one "
    "step at a time, or a fixed number of steps before it"
)


def mixing(node: onnx.NodeProto) -> str:
    how, what = next((words for operators, words in _EXPLAINED if node.op_type in operators), _OTHERWISE)
    return f"{label(node)} mixes steps with one another, so this model cannot answer a stream: {how}. {what}"


def rounding(said: str) -> str:
    return (
        "this network makes more of the last digits of its numbers than the proof accepts. Nothing in it was seen to "
        "mix steps or sequences: so small a difference is rounding, as sums are added in another order. Let it take no "
        f"large numbers from one another, and scale what goes in and comes out to about 1 ({said})"
    )


def last_digits(said: str) -> str:
    return (
        "this network makes so much of the last digits of its numbers that its own answers are not sure. Reading "
        "proves each step; the difference is rounding, as the file moves as far from itself where only these digits "
        "are changed. Let it take no large numbers from one another, and scale what goes in and comes out to about 1 "
        f"({said})"
    )


def growing_rounding(said: str, noise: float) -> str:
    """`noise`: how far the answers and states move if the inputs move by a millionth of themselves."""
    return (
        "in this network rounding grows to more than the proof accepts, as any small change of what goes in does: two "
        "runs that add in another order give other answers. Make its weights smaller, the recurrent ones first, and "
        f"scale what goes in and comes out to about 1 ({said}; the original's own answers and states differ by "
        f"{noise:.2g} where what goes in differs by a millionth)"
    )


_REDUCE = {
    "ReduceMean": "the mean",
    "ReduceMax": "the maximum",
    "ReduceMin": "the minimum",
    "ReduceSum": "the sum",
    "ReduceProd": "the product",
    "ReduceL1": "the norm",
    "ReduceL2": "the norm",
    "ReduceSumSquare": "the sum of squares",
    "ReduceLogSum": "the sum",
    "ReduceLogSumExp": "the sum",
    "GlobalAveragePool": "the mean",
    "GlobalMaxPool": "the maximum",
}
_CELLS_INSTEAD = (
    "Take the last step of a cell instead, or export the file for one step at a time, with what it remembers as an "
    "input and an output, and name that pair in model.toml beside the file, under [state]"
)
_BUFFER_INSTEAD = (
    "One that only looks back is served, with all of its padding before the first step and none after the last; one "
    "that looks ahead cannot be. Or export the file for one step at a time, with that buffer as an input and an "
    "output, and name the pair in model.toml beside the file, under [state]"
)
_ATTENTION = (
    "it weighs all steps of a sequence against each other, as attention does",
    (
        "Attention needs the whole sequence at once; export the recurrent part of the network without it. Where a mask "
        "leaves each step the last n alone, let the network put those n side by side instead, by n slices of its "
        "padded rows: that is served"
    ),
)
_OTHERWISE = ("its value at one step depends on other steps", ADVICE)
_EXPLAINED: tuple[tuple[frozenset[str], tuple[str, str]], ...] = (
    *(
        (frozenset({operator}), (f"it takes {what} over all steps of a sequence", _CELLS_INSTEAD))
        for operator, what in _REDUCE.items()
    ),
    (SLIDING, ("its window covers several steps", _BUFFER_INSTEAD)),
    (
        frozenset({"CumSum", "CumProd"}),
        ("it sums up what is before it otherwise than from the first step on", _CELLS_INSTEAD),
    ),
    (frozenset({"Attention", "Einsum", "Gemm", "LogSoftmax", "MatMul", "MultiHeadAttention", "Softmax"}), _ATTENTION),
    (
        frozenset({"GroupNormalization", "InstanceNormalization", "LayerNormalization", "MeanVarianceNormalization"}),
        (
            "it normalises over the steps of a sequence",
            "Normalise over features, or by constants that are part of the file",
        ),
    ),
    (
        frozenset({"Concat", "Expand", "Gather", "Pad", "ReverseSequence", "Slice", "Split", "Tile"}),
        ("it moves values from one step to another: it shifts, delays, cuts or reverses the sequence", ADVICE),
    ),
    (
        frozenset({"GatherElements", "GatherND"}),
        (
            "it picks steps by their numbers, which the file is given or computes",
            "In a stream the newest step is the last one: let it take that, `y[:, -1]`, in place of one by its number",
        ),
    ),
    (
        frozenset({"ArgMax", "ArgMin", "Hardmax", "TopK", "NonZero", "Unique"}),
        ("it chooses among all steps of a sequence", _CELLS_INSTEAD),
    ),
    (
        frozenset({"If"}),
        (
            "what is in its branches has a state that cannot be reached while data decide which is taken",
            "Say what the input that decides it always is in model.toml beside the file, under [fixed]",
        ),
    ),
    (
        frozenset({"Resize", "Upsample"}),
        ("it changes how many steps a sequence has", "Resample before the model, or after it"),
    ),
)
