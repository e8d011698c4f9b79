"""What the bench asks for, and what its nodes have room for."""

from __future__ import annotations

from bench.nodes import SLOTS
from bench.scenarios import ALONE_STREAMS, USUAL


def test_one_node_alone_has_room_for_every_load() -> None:
    assert max(scenario.connections for scenario in (*USUAL, ALONE_STREAMS)) < SLOTS
