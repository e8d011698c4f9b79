"""Drawing without random numbers of one's own."""

from __future__ import annotations

import random

from shrk_coordinator.state.dice import Dice, InTurn


def test_in_turn_everyone_is_drawn_equally_often_and_nobody_twice_at_once() -> None:
    dice = InTurn()
    draws = [list(dice.sample(range(10), 4)) for _ in range(5)]
    assert all(len(set(draw)) == 4 for draw in draws)
    assert sorted(one for draw in draws for one in draw) == sorted(list(range(10)) * 2)


def test_the_standard_librarys_dice_are_dice() -> None:
    dice: Dice = random.Random(1)
    assert len(set(dice.sample(range(100), 16))) == 16
