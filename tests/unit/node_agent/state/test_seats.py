"""Seats on GPUs: nobody gets less than they need, and no GPU is promised twice."""

from __future__ import annotations

import random

from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.seats import ANYWHERE, Seat, has_room, plan, taken_by
from shrk_node_agent.state.terms.fit import Model, fits, usable

GB = 10**9
GIB = 1 << 30


def gpus(*gib: int) -> list[GpuReading]:
    return [GpuReading(f"GPU-{n}", n, f"card of {size}", size * GIB) for n, size in enumerate(gib)]


def test_room_is_there_only_beside_those_that_have_not_gone_yet() -> None:
    cards = gpus(24)
    large, small = Seat(("GPU-0",), 15 * GB, 15 * GB), Seat(("GPU-0",), 8 * GB, 8 * GB)
    assert has_room(large, [small], cards)
    assert not has_room(large, [small, small], cards)
    whole = Seat(("GPU-0",), 22 * GB, 0)
    assert has_room(whole, [], cards)
    assert not has_room(whole, [small], cards)
    assert not has_room(small, [whole], cards)
    assert has_room(ANYWHERE, [large], cards)


def test_a_seat_shrinks_to_what_is_free_and_not_below_what_is_needed() -> None:
    card = GpuReading("GPU-0", 0, "card", 24 * GIB, memory_free_bytes=20 * GB)
    grown = Seat(("GPU-0",), 22 * GB, 5 * GB, 24 * GIB)
    taken = grown.started_on([card])
    assert isinstance(taken, Seat)
    assert (taken.bytes_each, taken.needed_each) == (int(20 * GB * 0.97), 5 * GB)
    assert isinstance(Seat(("GPU-0",), 22 * GB, 20 * GB).started_on([card]), str)
    untold = GpuReading("GPU-0", 0, "card", 24 * GIB)
    assert grown.started_on([untold]) == grown


def test_seats_together_never_take_more_than_a_gpu_has_and_each_has_what_it_needs() -> None:
    seed = 20_261_201
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(300):
        cards = gpus(*dice.choices((8, 12, 24, 24, 48), k=dice.randrange(1, 5)))
        kept: dict[str, Seat] = {}
        served = [a_model(f"m{n}", dice) for n in range(dice.randrange(1, 7))]
        for _ in range(3):
            wanted = dice.sample(served, dice.randrange(len(served) + 1))
            kept = {name: seat for name, seat in kept.items() if name in {model.name for model in wanted}}
            planned = plan(wanted, [m for m in served if m not in wanted], cards, kept)
            assert planned.seats.keys() | planned.reasons.keys() == {model.name for model in wanted}
            assert kept.items() <= planned.seats.items(), "who is loaded stays where it is"
            for card in cards:
                there = [seat for seat in planned.seats.values() if card.uuid in seat.devices]
                assert sum(seat.bytes_each for seat in there) <= usable(card)
            taken = taken_by(planned.seats.values())
            for model in wanted:
                if (its := planned.seats.get(model.name)) is not None:
                    assert its.bytes_each >= its.needed_each
                    assert len(its.devices) in (1, 2, 4)
                else:
                    assert not fits(model, cards, taken).fits, "there was room for it"
            kept = {name: seat for name, seat in planned.seats.items() if dice.random() < 0.7}


def a_model(name: str, dice: random.Random) -> Model:
    billions = dice.choice((None, 0.5, 3, 7, 14, 32, 70))
    memory = dice.choice((None, None, 10 * GB))
    return Model(name, billions, dice.choice(("", "awq", "fp8")), memory_bytes=memory)
