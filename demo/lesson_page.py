"""How the lesson looks: the unit with its gates, and two memories side by side. Pure: values in, lines out."""

from collections.abc import Iterable, Sequence

from demo.lesson import LESSON, READS, VALUE, WRITE, Taken
from tidegate.drawing.figure import figure
from tidegate.drawing.glyphs import Style

# As wide as in tidegate.figure, whose steps stand right below.
_LABEL, _COLUMN = 14, 8
_BAR = 20
_WRITTEN, _LOST = 215, 240  # colours of what is left of a value, and of what is not


def gates(taken: Taken, style: Style) -> list[str]:
    """What was sent, and below it the unit and its gates at each step."""
    flags = ["write" if write else "read" if read else "" for _, write, read in LESSON]
    block = "█" if style.unicode else "#"
    return [
        _row("value sent", (f"{value:.1f}" for value, *_ in LESSON)),
        _row("flag", flags),
        "",
        *figure(taken.answers, style=style),
        "",
        style.dim(f"{'':{_LABEL}}   o gate open (> 0.9)   - gate closed (< 0.1)   {block * 3} memory"),
    ]


def reading(taken: Taken) -> list[str]:
    """What the picture shows, in sentences that follow from the values."""
    if not taken.is_as_in_the_book:
        return [
            "This time the training found another solution than the one in the book. "
            + " ".join(f"The {gate} gate is open at: {_listed(taken.is_open(gate))}." for gate in _GATES)
        ]
    inward = f"Input gate (below): open at step {WRITE} only. Nothing else gets in, however much it disturbs."
    forget = (
        f"Forget gate (left): open, which means holding, from step {WRITE + 1} to {len(LESSON) - 1}. "
        f"At step {WRITE} it closes: the old content is erased as the new one is written."
    )
    outward = (
        f"Output gate (above): open at steps {_listed(READS)} only. "
        f"There it answers {_numbers(taken.recalled)}: about {VALUE}, which is as exact as one single unit gets."
    )
    return [inward, forget, outward]


def memories(lstm: Taken, rnn: Taken, style: Style) -> list[str]:
    """How much of what was written is left after each step, in two units side by side."""
    rows = [f"{'':8}   {'LSTM unit':{_BAR + 9}}  plain RNN unit"]
    for step, (gated, plain) in enumerate(zip(lstm.kept, rnn.kept, strict=True), start=WRITE):
        rows.append(f"  step {step}   {_bar(float(gated), style)}    {_bar(float(plain), style)}")
    return [style.bold(rows[0]), *rows[1:]]


def comparison(lstm: Taken, rnn: Taken) -> str:
    """What both said when they were asked."""
    return (
        f"Asked for {VALUE} at steps {_listed(READS)}, the LSTM unit says {_numbers(lstm.recalled)} "
        f"and the plain RNN unit {_numbers(rnn.recalled)}."
    )


_GATES = ("input", "forget", "output")


def _bar(share: float, style: Style) -> str:
    full = round(min(share, 1.0) * _BAR)
    mark, rest = ("█", "░") if style.unicode else ("#", ".")
    return f"{style.paint(mark * full, _WRITTEN)}{style.paint(rest * (_BAR - full), _LOST)} {share:>6.1%}"


def _row(label: str, cells: Iterable[str]) -> str:
    return (label.rjust(_LABEL) + "   " + "".join(cell.ljust(_COLUMN) for cell in cells)).rstrip()


def _listed(steps: Sequence[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, steps[:-1])), str(steps[-1])])) if steps else "no step"


def _numbers(values: Sequence[float]) -> str:
    return " and ".join(f"{value:z.2f}" for value in values)
