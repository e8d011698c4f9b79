"""A broken agent's frames: every way of breaking them comes to pass, and none of those that say how the node is."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from shrk_contract.v1 import link_pb2
from simulation.babble import Babble


def a_batch() -> list[link_pb2.NodeFrame]:
    """Twenty pieces of stream 1, and a report."""
    pieces = [link_pb2.NodeFrame(piece=link_pb2.Piece(stream=1, sequence=s)) for s in range(20)]
    return [*pieces, link_pb2.NodeFrame(drain=link_pb2.Drain())]


def test_frames_are_lost_doubled_brought_forward_and_named_for_others() -> None:
    babble = Babble(Random(1), lambda: [7])
    seen = set()
    for _ in range(40):
        garbled = babble.garble(a_batch())
        ours = [f.piece.sequence for f in garbled if f.piece.stream == 1 and f.HasField("piece")]
        seen |= {"lost" for s in range(20) if s not in ours}
        seen |= {"doubled" for s in ours if ours.count(s) > 1}
        seen |= {"forward" for s, t in pairwise(ours) if s > t}
        seen |= {"forged" for f in garbled if f.piece.stream == 7}
        assert garbled[-1].HasField("drain")
    assert seen == {"lost", "doubled", "forward", "forged"}


def test_some_orders_are_not_heard_and_all_credit_is() -> None:
    babble = Babble(Random(1), list)
    start, credit = link_pb2.CoordinatorFrame(start={"stream": 1}), link_pb2.CoordinatorFrame(credit={"stream": 1})
    batch = link_pb2.CoordinatorBatch(frames=[start, credit] * 100)
    babble.forget_some(batch)
    kinds = [frame.WhichOneof("frame") for frame in batch.frames]
    assert kinds.count("credit") == 100
    assert 50 < kinds.count("start") < 100
