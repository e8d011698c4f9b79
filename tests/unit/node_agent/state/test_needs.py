"""What an engine takes of its machine, as coordinators reckon."""

from __future__ import annotations

from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.terms.fit import OVERHEAD_BYTES, USABLE_SHARE, Model

CARDS = tuple(GpuReading(f"GPU-{n}", n, "card", size << 30) for n, size in enumerate((24, 12)))


def test_what_the_owner_says_counts_and_then_what_is_known_of_the_model() -> None:
    assert Need("m", "m", 7).bytes_on(CARDS) == 7
    known = Need("m", "m", size=Model("m", 3.0))
    assert 6e9 + OVERHEAD_BYTES < known.bytes_on(CARDS) < 12e9
    assert known.bytes_on(None) == 0, "without GPUs nobody counts"


def test_of_which_nothing_is_known_that_takes_a_whole_gpu_perhaps_the_smallest() -> None:
    assert Need("m", "m").bytes_on(CARDS) == int((12 << 30) * USABLE_SHARE)
    assert Need("m", "m").bytes_on(()) == 0
    assert Need("m", "m", 7).sized() == Model("m", memory_bytes=7)
