"""What one client may cause on one connection."""

from collections.abc import Callable
from dataclasses import dataclass

from tidegate.http2.frames import Code, ConnectionFault


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts and bytes of a connection."""

    # bytes of a message, after decompression
    message: int = 4 * 2**20
    # streams at a time
    streams: int = 1_024
    # bytes of a block of header fields as it comes, and in how many continuations
    header_block: int = 32 * 1024
    continuations: int = 8
    # bytes of the fields, as HTTP/2 counts them: those of a small block may be many
    header_list: int = 16 * 1024
    # frames that carry no message and that no honest client sends many of: at once, and per second
    control_frames: int = 10_000
    control_frames_per_second: int = 1_000
    # pings and credit, of which busy clients send one or two with each message
    light_frames: int = 200_000
    light_frames_per_second: int = 100_000
    # settings in one frame
    settings: int = 32


class Budget:
    """Frames that a peer may send and that carry nothing: a bucket that fills with time."""

    def __init__(self, most: int, per_second: int, now: float) -> None:
        self._most = most
        self._per_second = per_second
        self._left = float(most)
        self._since = now

    def take(self, now: float, count: int = 1) -> bool:
        """Takes so many, and says whether there were as many. What is lacking is a debt."""
        self._left = min(self._most, self._left + (now - self._since) * self._per_second) - count
        self._since = now
        return self._left >= 0


class Account:
    """What a connection's client has caused that carries no message. Raises ConnectionFault: it is too much."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._frames = Budget(limits.control_frames, limits.control_frames_per_second, clock())
        self._light = Budget(limits.light_frames, limits.light_frames_per_second, clock())

    def charge(self, count: int = 1) -> None:
        """Counts frames."""
        if not self._frames.take(self._clock(), count):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    def charge_light(self, count: int) -> None:
        """Counts pings and credit."""
        if not self._light.take(self._clock(), count):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many pings, or too much credit in small pieces")

    def owe(self) -> None:
        """Counts a frame of this side. Raises nothing, as calls also end outside of `receive`: it is seen later."""
        self._frames.take(self._clock())
