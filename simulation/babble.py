"""A broken agent: what TCP would never do to single frames of a batch, it does. The coordinator must not mind."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from shrk_contract.v1 import link_pb2

NodeFrame = link_pb2.NodeFrame

#: Frames of attempts. An agent that lost a failure would leave a whole answer waiting for an hour, as is its right.
_GARBLED = frozenset({"accepted", "prompt", "piece", "finish", "rejected"})


class Babble:
    """What one broken agent does to frames. Each probability is of one frame."""

    def __init__(self, dice: Random, others: Callable[[], list[int]]) -> None:
        """`others` tells the streams of other links: a broken agent may name them."""
        self._dice = dice
        self._others = others

    def garble(self, frames: list[NodeFrame]) -> list[NodeFrame]:
        """A batch on its way out: some frames lost, twice, late, or under another's name."""
        garbled: list[NodeFrame] = []
        for frame in frames:
            roll = self._dice.random()
            if roll > 0.12 or frame.WhichOneof("frame") not in _GARBLED:
                garbled.append(frame)
            elif roll < 0.03:
                pass
            elif roll < 0.06:
                garbled += [frame, frame]
            elif roll < 0.09:
                garbled.insert(0, frame)
            else:
                garbled += [frame, *self._forged(frame)]
        return garbled

    def _forged(self, frame: NodeFrame) -> list[NodeFrame]:
        """The same frame, in the name of an attempt that another node has."""
        kind = frame.WhichOneof("frame")
        others = self._others()
        if not others or kind is None:
            return []
        forged = NodeFrame.FromString(frame.SerializeToString())
        getattr(forged, kind).stream = self._dice.choice(others)
        return [forged]

    def forget_some(self, batch: link_pb2.CoordinatorBatch) -> None:
        """A batch on its way in: some cancellations and orders are not heard."""
        kept = [
            f for f in batch.frames if f.WhichOneof("frame") not in ("start", "cancel") or self._dice.random() > 0.1
        ]
        if len(kept) < len(batch.frames):
            heard = link_pb2.CoordinatorBatch(frames=kept)
            batch.CopyFrom(heard)
