"""What a model needs of GPUs, and which it gets, also against one who tries every set of them."""

from __future__ import annotations

import itertools
import random

import pytest

from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.terms.fit import SPREADS, USABLE_SHARE, Model, Need, Shape, SizeUnknown, fits, needed, pack

GIB = 1024**3
GB = 10**9


def gpus(*gib: int, lost: bool = False) -> list[GpuReading]:
    return [GpuReading(f"GPU-{n}", n, f"card of {size}", size * GIB, lost=lost) for n, size in enumerate(gib)]


def need_of(model: Model) -> Need:
    need = needed(model)
    assert isinstance(need, Need)
    return need


@pytest.mark.parametrize(
    ("model", "inside"),
    [
        (Model("9b", 9), True),
        (Model("24b in four bits", 24, "awq"), True),
        (Model("24b", 24), False),
        (Model("70b in four bits", 70, "gptq"), False),
        (Model("70b", 70), False),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_a_card_of_24_gb_holds(model: Model, inside: bool) -> None:
    fit = fits(model, gpus(24))
    assert fit.fits is inside
    assert bool(fit.reason) is not inside


def test_a_known_shape_and_known_files_count_before_guesses() -> None:
    shape = Shape(layers=36, kv_heads=8, head_size=128)
    assert shape.token_bytes == 147_456
    need = need_of(Model("m", 9, weights_bytes=5 * GB, shape=shape, context_tokens=32_768))
    assert (need.weights, need.cache) == (5 * GB, 32_768 * 147_456)
    many_slots = need_of(Model("m", 9, shape=shape, slots=64, context_tokens=4_096))
    assert many_slots.cache == 64 * 1_024 * 147_456
    assert need_of(Model("m", 9, "awq", memory_bytes=7 * GB)).each(1) == 7 * GB


def test_what_is_not_known_is_said_with_the_remedy() -> None:
    for model, what in ((Model("m"), "its size is not known"), (Model("m", 9, "q4_k_m"), "'q4_k_m' is none of")):
        unknown = needed(model)
        assert isinstance(unknown, SizeUnknown)
        assert what in unknown.reason
        assert "memory_gb" in unknown.reason
    assert fits(Model("m", quantisation="q4_k_m", weights_bytes=5 * GB), gpus(24)).fits


def test_a_model_of_which_nothing_is_known_has_a_gpu_to_itself() -> None:
    fit = fits(Model("m"), gpus(12, 24, 24), {"GPU-1": GB})
    assert (fit.devices, fit.whole) == (("GPU-2",), True)
    assert fit.bytes_needed == int(24 * GIB * USABLE_SHARE)
    second = pack([Model("m"), Model("n"), Model("9b", 9)], gpus(24))
    assert [name for name, fit in second.fits.items() if fit.fits] == ["m"]
    assert second.fits["n"].reason.endswith("until then it gets a whole GPU, and none is free")
    assert not fits(Model("m"), gpus(24, lost=True)).fits


def test_a_gpu_that_does_not_tell_its_memory_takes_one_model() -> None:
    unified = GpuReading("GPU-0", 0, "unified memory")
    packing = pack([Model("9b", 9), Model("3b", 3)], [unified])
    assert (packing.fits["9b"].devices, packing.fits["9b"].whole) == (("GPU-0",), True)
    assert not packing.fits["3b"].fits


def test_the_reason_names_the_gpu_that_comes_nearest() -> None:
    model = Model("m", memory_bytes=int(14.2 * GB))
    assert fits(model, gpus(6, 12)).reason == "needs 14.2 GB, GPU 1 has 11.9 GB"
    assert fits(model, gpus(12), {"GPU-0": GB}).reason == "needs 14.2 GB, GPU 0 has 10.9 GB left"
    assert fits(model, []).reason == "needs 14.2 GB, and there is no GPU"
    large = Model("m", memory_bytes=60 * GB)
    assert fits(large, gpus(24, 24)).reason == "needs 60.0 GB, GPU 0 has 23.7 GB, and 2 GPUs need 30.0 GB each"


def test_a_model_too_large_for_one_is_spread_over_equal_ones() -> None:
    model = Model("70b in four bits", 70, "awq")
    assert fits(model, gpus(24, 12, 24, 24, 24)).devices == ("GPU-0", "GPU-2", "GPU-3", "GPU-4")
    assert fits(model, gpus(48, 24, 48, 24)).devices == ("GPU-0", "GPU-2")
    assert not fits(model, gpus(24, 12, 24, 16)).fits
    uneven = Model("m", 70, "awq", shape=Shape(80, 8, 128, heads=7))
    assert not fits(uneven, gpus(48, 48)).fits


def test_a_lost_gpu_holds_nothing() -> None:
    assert not fits(Model("9b", 9), gpus(24, lost=True)).fits


def test_models_are_packed_in_their_owners_order_small_ones_on_one_gpu() -> None:
    small, other, large = Model("small", 3), Model("other", 3), Model("large", 9)
    packing = pack([small, other, large], gpus(24, 24))
    assert [packing.fits[name].devices for name in ("small", "other", "large")] == [("GPU-0",), ("GPU-0",), ("GPU-1",)]
    last = pack([large, Model("large again", 9), small], gpus(24, 24))
    assert last.fits["large again"].devices == ("GPU-1",)
    assert "left" in last.fits["small"].reason
    assert all(taken <= 24 * GIB * USABLE_SHARE for taken in last.taken.values())


def test_as_one_who_tries_every_set_of_gpus() -> None:
    seed = 20_261_130
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(400):
        cards = gpus(*dice.choices((8, 12, 24, 24, 48), k=dice.randrange(1, 9)))
        taken = {card.uuid: dice.choice((0, 0, 5 * GB)) for card in cards}
        model = Model("m", dice.choice((1, 3, 9, 24, 32, 70, 120)), dice.choice(("", "awq", "fp8")))
        fit, need = fits(model, cards, taken), need_of(model)
        able = [
            {card.uuid for card in chosen}
            for size in SPREADS
            for chosen in itertools.combinations(cards, size)
            if len({card.memory_bytes for card in chosen}) == 1
            and all(c.memory_bytes * USABLE_SHARE - taken[c.uuid] >= need.each(size) for c in chosen)
        ]
        fewest = min(map(len, able), default=0)
        assert (len(fit.devices), fit.tensor_parallel) == (fewest, fewest)
        assert not fewest or set(fit.devices) in able
