"""What a link talks to for one attempt: its relay, under the stream's own name."""

from __future__ import annotations

from typing import Protocol

from shrk_contract.v1 import link_pb2
from shrk_coordinator.state.events import StreamId


class Takes(Protocol):
    """A relay, as far as frames go."""

    def prompt(self, stream: StreamId, prompt: link_pb2.Prompt) -> None:
        """A part of the prompt's ids."""
        ...

    def piece(self, stream: StreamId, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        """A part of the answer."""
        ...

    def finish(self, stream: StreamId, finish: link_pb2.Finish) -> None:
        """The node's last word."""
        ...


class StreamSink:
    """Takes one attempt's frames to its relay, under the stream's own name."""

    __slots__ = ("_relay", "_stream")

    def __init__(self, relay: Takes, stream: StreamId) -> None:
        self._relay = relay
        self._stream = stream

    def prompt(self, prompt: link_pb2.Prompt) -> None:
        """A part of the prompt's ids."""
        self._relay.prompt(self._stream, prompt)

    def piece(self, piece: link_pb2.Piece, size: int, part: bytes) -> None:
        """A part of the answer."""
        self._relay.piece(self._stream, piece, size, part)

    def finish(self, finish: link_pb2.Finish) -> None:
        """The node's last word."""
        self._relay.finish(self._stream, finish)
