"""Queries of death: who is blamed, who waits, who is refused."""

from __future__ import annotations

from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.suspects import CRASHES_MAX, POISONED_SECONDS, SUSPECTS_MAX, Suspects

DEADLY, HARMLESS = b"deadly", b"harmless"


def life(number: int) -> EngineLife:
    return EngineLife(number, "m", 1)


def test_two_crashes_convict_and_one_does_not() -> None:
    suspects = Suspects()
    suspects.blame(0.0, DEADLY, "a", life(1))
    assert not suspects.poisoned(0.0, DEADLY)
    assert suspects.nodes(0.0, DEADLY) == {"a"}
    suspects.blame(1.0, DEADLY, "b", life(2))
    assert suspects.poisoned(1.0, DEADLY)
    assert not suspects.poisoned(1.0, HARMLESS)
    assert suspects.seconds_left(1.0, DEADLY) == POISONED_SECONDS


def test_several_of_the_same_request_that_crash_together_count_once() -> None:
    suspects = Suspects()
    for _ in range(5):
        suspects.blame(0.0, DEADLY, "a", life(1))
    assert not suspects.poisoned(0.0, DEADLY)


def test_where_there_is_one_node_it_takes_one_crash_more() -> None:
    suspects = Suspects()
    for number in range(1, CRASHES_MAX + 1):
        assert not suspects.poisoned(0.0, DEADLY)
        suspects.blame(0.0, DEADLY, "a", life(number))
    assert suspects.poisoned(0.0, DEADLY)


def test_after_a_while_it_may_try_again_with_a_clean_name() -> None:
    suspects = Suspects()
    for number in (1, 2):
        suspects.blame(0.0, DEADLY, f"n{number}", life(number))
    assert suspects.poisoned(POISONED_SECONDS - 0.1, DEADLY)
    assert not suspects.poisoned(POISONED_SECONDS, DEADLY)
    suspects.blame(POISONED_SECONDS, DEADLY, "a", life(3))
    assert not suspects.poisoned(POISONED_SECONDS, DEADLY)


def test_a_token_clears_it() -> None:
    suspects = Suspects()
    suspects.blame(0.0, DEADLY, "a", life(1))
    assert suspects.cleared(DEADLY)
    assert not suspects.nodes(0.0, DEADLY)
    assert not suspects.cleared(DEADLY)


def test_only_so_many_are_remembered_and_the_newest_are() -> None:
    suspects = Suspects()
    for number in range(SUSPECTS_MAX + 1):
        suspects.blame(0.0, number.to_bytes(4, "big"), "a", life(number))
    assert not suspects.nodes(0.0, (0).to_bytes(4, "big"))
    assert suspects.nodes(0.0, SUSPECTS_MAX.to_bytes(4, "big"))
