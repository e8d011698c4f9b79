"""Devices: what a reading says by default, and which GPUs `visible_devices` names."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_node_agent.state.devices import Device, DevicesRefused, GpuReading, visible

ONE = Device(0, "GPU-8f5a1c00-0000", "RTX 4090")
TWO = Device(1, "GPU-8f5b2d00-0000", "RTX 3060")
#: nvidia-smi counts GPUs that we may not use as well, so that indexes have gaps.
FOUR = Device(3, "GPU-8f5b2d00-0000-4444", "RTX 3060")
KNOWN = (ONE, TWO, FOUR)


def test_a_reading_that_was_told_nothing_says_so_of_each_metric() -> None:
    reading = GpuReading("GPU-x", 0, "a GPU")
    assert (reading.temperature_celsius, reading.power_watts, reading.processes) == (None, None, None)
    assert not reading.lost
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.lost = True  # type: ignore[misc]  # which is the point


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ((), KNOWN),
        (("0",), (ONE,)),
        (("3", "0"), (ONE, FOUR)),
        (("0", "0", ONE.uuid), (ONE,)),
        ((" 1 ",), (TWO,)),
        (("GPU-8f5a",), (ONE,)),
        (("gpu-8F5A",), (ONE,)),
        # The whole UUID of one GPU is the beginning of another's.
        ((TWO.uuid,), (TWO,)),
    ],
)
def test_an_index_a_uuid_and_the_beginning_of_one_uuid_name_a_gpu(
    wanted: tuple[str, ...], chosen: tuple[Device, ...]
) -> None:
    assert visible(wanted, KNOWN) == chosen


@pytest.mark.parametrize("word", ["2", "-1", "GPU-9", "MIG-1", "all", "", "٣"])
def test_a_name_that_no_gpu_has_is_refused_with_those_there_are(word: str) -> None:
    refused = visible(("0", word), KNOWN)
    assert isinstance(refused, DevicesRefused)
    assert refused.reason.startswith(
        f"visible_devices: there is no GPU {word!r}; this machine has 0 (GPU-8f5a1c00-0000"
    )
    assert "3 (GPU-8f5b2d00-0000-4444, RTX 3060)" in refused.reason


def test_a_beginning_that_several_have_is_refused_with_them() -> None:
    refused = visible(("GPU-8f5b",), KNOWN)
    assert isinstance(refused, DevicesRefused)
    assert "the beginning of 2 UUIDs: 1 (" in refused.reason
    assert "RTX 4090" not in refused.reason


def test_a_machine_without_gpus_refuses_every_name_and_takes_none() -> None:
    assert visible((), ()) == ()
    refused = visible(("0",), ())
    assert isinstance(refused, DevicesRefused)
    assert "this machine has none" in refused.reason


@given(st.integers(0, 2**32))
def test_whatever_is_chosen_keeps_the_order_of_the_machine_and_is_all_that_was_named(seed: int) -> None:
    dice = random.Random(seed)
    known = [Device(index, f"GPU-{dice.getrandbits(64):016x}", "a GPU") for index in range(dice.randrange(1, 9))]
    named = dice.sample(known, dice.randrange(1, len(known) + 1))
    words = [device.uuid if dice.random() < 0.5 else str(device.index) for device in named]
    chosen = visible(words, known)
    assert chosen == tuple(sorted(named, key=lambda device: device.index))
