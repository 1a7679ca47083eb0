"""Operators that slide a window: convolutions, pools, spectra. Along time they reach as far as their window does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from stepgraph.rules.axes import Axis, Time, has_rows, has_time, length, plain, time_of
from stepgraph.rules.size import Size
from stepgraph.rules.table import OWN, Call, over, put, rearranged, rule, whole
from stepgraph.rules.value import Value, joined, mixes, mixes_rows, unknown

_SAYS = "reach n along time, by kernel, dilation, stride and padding"


@dataclass(frozen=True)
class Window:
    """Along one axis. `span` is from its first element to its last."""

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    ceil: bool = False

    @property
    def span(self) -> int:
        return self.dilation * (self.kernel - 1)

    def count(self, size: int) -> int:
        """How many windows fit so many elements; where it is rounded up, the last begins within them."""
        room = size + self.before + self.after - self.span - 1
        if not self.ceil:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        return count - ((count - 1) * self.stride >= size + self.before)


@rule("Conv", "ConvInteger", says=_SAYS)
@rule("FusedConv", says=_SAYS, domain=OWN)
def convolution(call: Call) -> Value:
    return _convolved(call, call.value(0), call.value(1))


@rule("QLinearConv", says=_SAYS)
def rounded_convolution(call: Call) -> Value:
    return _convolved(call, call.value(0), call.value(3))


def _convolved(call: Call, x: Value, weight: Value) -> Value:
    if any(value.live for value in call.all if value is not x):
        raise unknown("has weights that depend on the data")
    over(x, [1], "sums")
    filters = weight.axes[0]
    kernel = [whole(axis) or 1 for axis in weight.axes[2:]]
    return _slid(call, replace(x, axes=put(x.axes, 1, filters), number=None), kernel, slid)


@rule("AveragePool", "LpPool", "MaxPool", says=_SAYS)
def pool(call: Call) -> list[Value]:
    pooled = _slid(call, call.value(), call.attributes["kernel_shape"], slid)
    if len(call.node.output) > 1:
        return [pooled, Value(pooled.axes, varies="depends on how many steps there are")]
    return [pooled]


@rule("ConvTranspose", says=_SAYS)
def transposed_convolution(call: Call) -> Value:
    x, weight = call.value(), call.value(1)
    if any(value.live for value in call.all[1:]) or "output_shape" in call.attributes:
        raise unknown("has weights or a shape that cannot be told from the file")
    over(x, [1], "sums")
    filters = (whole(weight.axes[1]) or 1) * call.attributes.get("group", 1)
    kernel = [whole(axis) or 1 for axis in weight.axes[2:]]
    added = call.attributes.get("output_padding", [0] * len(kernel))
    wide = replace(x, axes=put(x.axes, 1, plain(filters)), number=None)
    return _slid(call, wide, kernel, lambda v, i, w: _backward(v, i, w, added[i - 2]))


@rule("Col2Im", says=_SAYS)
def overlapped(call: Call) -> Value:
    """Adds blocks to one another where they overlap, as the inverse of a spectrum does with its frames."""
    x, image, block = call.value(), call.numbers("image_shape", 1) or [], call.number(2)
    count, blocks = whole(x.axes[1]), whole(x.axes[2])
    if block is None or count is None:
        raise unknown("has blocks that cannot be told from the file")
    kernel = [int(n) for n in block]
    front = (x.axes[0], plain(count // prod(kernel)))
    places = [i for i, n in enumerate(image) if isinstance(n, Size)]
    if blocks is not None and not places:
        return joined([x], (*front, *(plain(int(n)) for n in image)))
    windows = all_of(call, kernel)
    once = all(windows[i].count(int(n)) == 1 for i, n in enumerate(image) if i not in places)
    if len(places) != 1 or not once or _plain_time(x.axes[2]) != Time(_plain_time(x.axes[2]).rate):
        raise unknown("lays blocks of steps out in a shape that cannot be followed")
    (place,) = places
    sides = [x.axes[2] if i == place else plain(int(n)) for i, n in enumerate(image)]
    return _overlapped(joined([x], (*front, *sides)), 2 + place, windows[place], image[place])


def _overlapped(x: Value, place: int, window: Window, size: Size) -> Value:
    covered = (length(x.axes[place]) - 1) * window.stride + window.span + 1 - window.before - window.after
    added = size - covered
    if isinstance(added, Size) or not 0 <= added < window.stride:
        raise unknown("lays blocks of steps out in a shape that cannot be followed")
    return _backward(x, place, window, added)


@rule("STFT", says=_SAYS)
def spectra(call: Call) -> Value:
    x, window = call.value(), of_spectra(call)
    bins = window.kernel // 2 + 1 if call.attributes.get("onesided", 1) else window.kernel
    framed = slid(replace(x, axes=x.axes[:2]), 1, window)
    return replace(framed, axes=(*framed.axes, plain(bins), plain(2)))


def of_spectra(call: Call) -> Window:
    """The window of an STFT."""
    step, size = call.number(1), call.number(3)
    size = size if size is not None else call.number(2)
    if step is None or size is None:
        raise unknown("has frames that cannot be told from the file")
    kernel = int(size.item()) if size.ndim == 0 or (size.size == 1 and call.given(3) is not None) else size.shape[0]
    return Window(kernel, int(step.item()), 1, 0, 0)


Slide = Callable[[Value, int, Window], Value]


def _slid(call: Call, x: Value, kernel: Sequence[int], slide: Slide) -> Value:
    """Slides a window along all axes from the third on."""
    result = joined([x], x.axes)
    for place, window in zip(range(2, len(x.axes)), all_of(call, kernel), strict=True):
        result = slide(result, place, window)
    return result


def all_of(call: Call, kernel: Sequence[int]) -> list[Window]:
    """The window of a node along each axis from the third on."""
    rank = len(kernel)
    strides, dilations = (call.attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads = call.attributes.get("pads", [0] * (2 * rank))
    how = call.attributes.get("auto_pad", b"NOTSET").decode()
    if how not in ("NOTSET", "VALID") and (any(s != 1 for s in strides) or call.node.op_type == "ConvTranspose"):
        raise unknown("pads so that the number of its answers is rounded up")
    found = []
    for i in range(rank):
        span = dilations[i] * (kernel[i] - 1)
        same = {"SAME_UPPER": (span // 2, span - span // 2), "SAME_LOWER": (span - span // 2, span // 2)}
        before, after = same.get(how, (0, 0) if how == "VALID" else (pads[i], pads[i + rank]))
        ceil = bool(call.attributes.get("ceil_mode", 0))
        found.append(Window(kernel[i], strides[i], dilations[i], before, after, ceil))
    return found


def slid(x: Value, place: int, window: Window) -> Value:
    """A window along one axis: what it computes of the elements in it, and how far these are."""
    axis = x.axes[place]
    if not has_time(axis) and not has_rows(axis):
        return rearranged(x, put(x.axes, place, _features(window.count(whole(axis) or 1))))
    if window.kernel == window.stride == 1 and not window.before and not window.after:
        return x
    time = _plain_time(axis)
    if time.rate % window.stride:
        raise mixes(f"answers once for every {window.stride} steps")
    rate = time.rate // window.stride
    extra = window.count(time.extra)  # windows beyond those of the steps themselves
    shift = 0 if extra == 0 else (time.shift - window.before + window.span) // window.stride
    back, ahead = float("-inf"), float("-inf")
    for phase in range(rate):  # of the elements of one step
        first = (phase - shift) * window.stride - window.before + time.shift
        back, ahead = max(back, -(first // time.rate)), max(ahead, (first + window.span) // time.rate)
    return replace(
        x, axes=put(x.axes, place, (Time(rate, shift, extra),)), back=x.back + back, ahead=x.ahead + ahead, number=None
    )


def _backward(x: Value, place: int, window: Window, added: int) -> Value:
    """A window that each element spreads itself over."""
    axis = x.axes[place]
    if not has_time(axis) and not has_rows(axis):
        count = ((whole(axis) or 1) - 1) * window.stride + window.span + 1 - window.before - window.after + added
        return rearranged(x, put(x.axes, place, _features(count)))
    if window.kernel == window.stride == 1 and not (window.before or window.after or added):
        return x
    time = _plain_time(axis)
    rate = time.rate * window.stride
    extra = (time.extra - 1) * window.stride + window.span + 1 - window.before - window.after + added
    shift = 0 if extra == 0 else time.shift * window.stride + window.before  # the last that adds to it is its own
    back, ahead = float("-inf"), float("-inf")
    for phase in range(rate):
        last = phase - shift + window.before  # among all that is spread
        lowest = -((window.span - last) // window.stride)
        highest = last // window.stride
        back = max(back, -((lowest + time.shift) // time.rate))
        ahead = max(ahead, (highest + time.shift) // time.rate)
    return replace(
        x, axes=put(x.axes, place, (Time(rate, shift, extra),)), back=x.back + back, ahead=x.ahead + ahead, number=None
    )


def _features(count: int) -> Axis:
    if count < 1:
        raise unknown("has a window that is larger than what it covers")
    return plain(count)


def _plain_time(axis: Axis) -> Time:
    """The steps of an axis that has nothing else."""
    time = time_of([axis])
    if time is None:
        raise mixes_rows("has a window that covers several sequences of a batch")
    if axis != (time,):
        raise unknown("has a window along an axis of sequences and steps")
    return time
