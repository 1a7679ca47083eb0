"""Requests of one sequence that wait for their turn, behind one that the server has to answer first. Pure.

Knows the requests' kinds and nothing of what they are about, nor whether there is a stream.
"""

from collections import deque

from tidegate.protocol.control import BLOCKING
from tidegate.v1 import sequence_pb2 as pb


class Turns:
    """What goes out later; `blocked` while the server takes nothing, before it has answered a move or a rewind."""

    def __init__(self) -> None:
        self.blocked = False
        self._later: deque[pb.StreamRequest] = deque()

    def say(self, requests: list[pb.StreamRequest]) -> list[pb.StreamRequest]:
        """What of these can be sent now. The rest goes out in its turn."""
        self._later.extend(requests)
        return [] if self.blocked else self.go_on()

    def go_on(self) -> list[pb.StreamRequest]:
        """What waits, up to the next request that the server has to answer first."""
        self.blocked = False
        requests: list[pb.StreamRequest] = []
        while self._later and not self.blocked:
            requests.append(self._later.popleft())
            self.blocked = requests[-1].WhichOneof("request") in BLOCKING
        return requests

    def clear(self) -> None:
        """The stream is gone, and with it what it was waiting for."""
        self.blocked = False
        self._later.clear()
