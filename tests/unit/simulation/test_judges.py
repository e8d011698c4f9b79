"""The judge's own records: each tells a network that keeps a rule from one that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shrk_contract.terms import Pin
from shrk_coordinator.state.breaker import Breaker
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.served import Offer
from simulation.asks import draw
from simulation.budgets import Budgets
from simulation.deaths import Deaths
from simulation.site import Site
from simulation.standings import Standings
from simulation.story import Story, Try

LIFE, NEXT_LIFE = EngineLife(1, "e0", 1), EngineLife(1, "e0", 2)
OTHERS = {"a", "b", "c"}


def a_story(prompt: int = 1) -> Story:
    """A request that has come at second 0."""
    return Story(replace(draw(Random(1), 1, ["m"]), prompt=prompt), 0.0)


def a_try(node: str = "a", life: EngineLife = LIFE, story: Story | None = None, at: float = 0.0) -> Try:
    """An attempt on a node."""
    site = cast(Site, SimpleNamespace(node_id=node))
    return Try(1, story or a_story(), life, Pin(), cast(Offer, None), site, at)


def breaks(what: str, rule: Callable[..., Any], *facts: Any, **more: Any) -> None:
    """These facts break a rule, and the judge says so."""
    with pytest.raises(AssertionError, match=what):
        rule(*facts, **more)


def test_a_story_goes_on_with_the_rival_when_the_first_attempt_ends() -> None:
    story = a_story()
    first, rival = a_try("a", story=story), a_try("b", story=story)
    story.begins(first, rival=False)
    story.begins(rival, rival=True)
    story.drops(first, 5.0)
    assert (story.tries, story.attempts, story.waits_since) == ([rival], 2, None)
    breaks("ended twice", story.drops, first, 6.0)
    story.drops(rival, 7.0)
    assert (story.tries, story.waits_since) == ([], 7.0)


# --- standings ---------------------------------------------------------------------------------------


def failed(standings: Standings, times: int, life: EngineLife = LIFE, *, confirmed: bool = False) -> None:
    """So many requests fail on node a at second 0."""
    for _ in range(times):
        standings.failed(a_try("a", life), 0.0, confirmed=confirmed)


def test_a_breaker_is_open_for_three_failures_or_a_stall_and_for_nothing_less() -> None:
    standings, opened = Standings(), Breaker(opened=1, open_until=30.0)
    failed(standings, 2)
    breaks("without a reason", standings.justify, ("a", "m"), opened, 0.0)
    failed(standings, 1)
    standings.justify(("a", "m"), opened, 0.0)
    standings.spoke(a_try("a"))
    breaks("without a reason", standings.justify, ("a", "m"), opened, 0.0)
    standings.stalled(a_try("a"))
    standings.justify(("a", "m"), opened, 0.0)
    breaks("for too long", standings.justify, ("a", "m"), replace(opened, open_until=301.0), 0.0)


def test_an_engine_that_was_lost_with_many_requests_has_failed_once() -> None:
    standings = Standings()
    failed(standings, 5, confirmed=True)
    breaks("without a reason", standings.justify, ("a", "m"), Breaker(opened=1), 0.0)


def test_where_three_failed_nothing_is_asked_until_the_breaker_is_due() -> None:
    standings = Standings()
    failed(standings, 2)
    standings.begun(a_try("a"), 1.0)
    failed(standings, 1)
    breaks("failed one after another", standings.begun, a_try("a"), 29.0)
    standings.begun(a_try("b"), 29.0)
    standings.begun(a_try("a", at=30.0), 30.0)


def test_one_request_at_a_time_tries_whether_a_node_is_well_again() -> None:
    standings = Standings()
    failed(standings, 3)
    probe = a_try("a", NEXT_LIFE, at=1.0)
    standings.begun(probe, 1.0)
    breaks("tries whether it is well", standings.begun, a_try("a", NEXT_LIFE), 2.0)
    standings.over(probe)
    standings.begun(a_try("a", NEXT_LIFE, at=3.0), 3.0)


def test_an_answer_that_has_begun_may_go_on_anywhere() -> None:
    standings, story = Standings(), a_story()
    failed(standings, 3)
    story.pins.add(Pin())
    standings.begun(a_try("a", story=story), 1.0)


# --- budgets -----------------------------------------------------------------------------------------


def test_hedges_are_one_in_twenty_requests_and_one() -> None:
    budgets, story = Budgets(), a_story()
    budgets.hedge(story)
    breaks("2 hedges of 0 requests", budgets.hedge, story)
    for _ in range(40):
        budgets.request()
    budgets.hedge(story)
    breaks("4 hedges of 40 requests", budgets.hedge, story)


def test_three_retries_run_at_once_and_a_fourth_needs_five_requests() -> None:
    budgets, stories = Budgets(), [a_story(n) for n in range(5)]
    for story in stories[:4]:
        budgets.retry(story)
    assert [story.denied for story in stories[:4]] == [False, False, False, True]
    for _ in range(6):
        budgets.request()
    budgets.retry(stories[4])
    assert not stories[4].denied


def test_a_retry_is_under_way_until_its_request_has_ended() -> None:
    budgets, stories = Budgets(), [a_story(n) for n in range(4)]
    for story in stories[:3]:
        budgets.retry(story)
    budgets.over(stories[0])
    budgets.retry(stories[3])
    assert not stories[3].denied


# --- deaths ------------------------------------------------------------------------------------------


def test_after_two_crashes_nobody_is_asked_for_ten_minutes() -> None:
    deaths, deadly = Deaths(), a_story()
    deaths.crashed(a_try("a", story=deadly), 0.0)
    assert not deaths.convicted(deadly, 0.0)
    deaths.crashed(a_try("b", NEXT_LIFE, deadly), 1.0)
    assert deaths.convicted(deadly, 1.0)
    breaks("has crashed 2 engines", deaths.begun, a_try("c", story=deadly), OTHERS, (), 2.0)
    deaths.begun(a_try("c", story=deadly), OTHERS, (), 602.0)


def test_a_suspect_is_asked_elsewhere_where_there_is_another_node() -> None:
    deaths, story = Deaths(), a_story()
    deaths.crashed(a_try("a", story=story), 0.0)
    breaks("which it crashed", deaths.begun, a_try("a", story=story), OTHERS, (), 1.0)
    deaths.begun(a_try("a", story=story), {"a"}, (), 1.0)


def test_a_suspect_is_not_asked_beside_another_that_was_sent_before() -> None:
    deaths, early, late = Deaths(), a_story(1), a_story(2)
    reading = a_try("b", story=early)
    for story in (early, late):
        deaths.crashed(a_try("a", story=story), 0.0)
    breaks("beside another suspect", deaths.begun, a_try("b", story=late), OTHERS, [reading], 1.0)
    reading.spoke_at = 1.0
    deaths.begun(a_try("b", story=late), OTHERS, [reading], 1.0)
