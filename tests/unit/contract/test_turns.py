"""One fact at a time."""

from __future__ import annotations

import pytest

from shrk_contract.turns import Turns


def test_what_is_posted_while_an_event_is_taken_in_waits_behind_it() -> None:
    seen: list[str] = []

    def take(event: str) -> None:
        seen.append(f"{event} begins")
        if event == "first":
            turns.post("second")
            turns.post("third")
        seen.append(f"{event} ends")

    turns = Turns(take)
    turns.post("first")
    assert seen == [f"{event} {what}" for event in ("first", "second", "third") for what in ("begins", "ends")]


def test_after_a_surprise_the_next_event_is_taken_in_again() -> None:
    seen: list[int] = []

    def take(event: int) -> None:
        if event == 0:
            raise RuntimeError("planted")
        seen.append(event)

    turns = Turns(take)
    with pytest.raises(RuntimeError, match="planted"):
        turns.post(0)
    turns.post(1)
    assert seen == [1]
