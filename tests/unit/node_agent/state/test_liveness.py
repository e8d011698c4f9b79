"""When an engine counts as hung: all in played time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from shrk_node_agent.state.liveness import (
    CANARY_SECONDS_MAX,
    DOUBLINGS_MAX,
    HUNG_SECONDS_MAX,
    IDLE_CANARY_SECONDS,
    LAPSE_SECONDS,
    LOOK_SECONDS_MAX,
    QUIET_SECONDS,
    Liveness,
    Load,
    Phase,
    Want,
)

TICK = 0.25
#: Far beyond every limit, stretched or not.
LONG = 40 * HUNG_SECONDS_MAX


@dataclass
class Played:
    """An engine, and the clock that it is looked at by."""

    load: Load
    liveness: Liveness
    now: float = 0.0
    #: What it answers when its figures are read: none where it does not answer at all.
    figures: Callable[[float], tuple[str, ...] | None] = lambda now: None

    def tick(self) -> Want | None:
        """One tick; figures are told as soon as they are asked for."""
        self.now += TICK
        want = self.liveness.tick(self.now, self.load)
        if want is Want.READ_FIGURES and (figures := self.figures(self.now)) is not None:
            self.liveness.figures_read(self.now, figures)
        return want

    def wants(self, seconds: float) -> Iterator[tuple[float, Want]]:
        """(seconds from now, what) of all that is wanted within this time."""
        began = self.now
        while self.now < began + seconds:
            if (want := self.tick()) is not None:
                yield self.now - began, want
                if want is Want.RESTART:
                    return

    def until(self, wanted: Want, seconds: float = LONG) -> float:
        """Seconds from now until this is wanted."""
        for after, want in self.wants(seconds):
            if want is wanted:
                return after
        raise AssertionError(f"not wanted within {seconds} s: {wanted}")


def an_engine(in_flight: int = 1, slots: int = 4, failures: int = 0) -> Played:
    return Played(Load(in_flight, slots, failures), Liveness.ready(0.0))


def standing_still(now: float) -> tuple[str, ...]:
    return ("5.0", "7.0", "0.5")


def working(now: float) -> tuple[str, ...]:
    return (str(now), "7.0", "0.5")


def test_an_engine_whose_tokens_come_is_left_alone() -> None:
    engine = an_engine()
    for _ in range(1000):
        assert engine.tick() is None
        engine.liveness.answers_moved(engine.now, held=0)


def test_a_quiet_engine_is_looked_at_twice_and_then_asked() -> None:
    engine = an_engine()
    engine.figures = standing_still
    wants = list(engine.wants(LONG))
    first = [want for _, want in wants[:3]]
    assert first == [Want.READ_FIGURES, Want.READ_FIGURES, Want.ASK_CANARY]
    assert wants[0][0] == QUIET_SECONDS
    assert sum(want is Want.ASK_CANARY for _, want in wants) == 1


def test_an_engine_that_gives_no_token_for_all_its_time_is_hung() -> None:
    engine = an_engine()
    engine.figures = standing_still
    engine.until(Want.ASK_CANARY)
    assert engine.until(Want.RESTART) == CANARY_SECONDS_MAX


def test_an_engine_that_does_not_even_tell_its_figures_is_asked_all_the_same() -> None:
    engine = an_engine()
    assert engine.until(Want.ASK_CANARY) == QUIET_SECONDS + LOOK_SECONDS_MAX
    assert engine.until(Want.RESTART) == CANARY_SECONDS_MAX


def test_figures_that_move_are_a_sign_of_life_and_spare_the_canary() -> None:
    engine = an_engine()  # a whole answer: no piece before its end
    engine.figures = working
    wants = {want for _, want in engine.wants(LONG)}
    assert wants == {Want.READ_FIGURES}


@pytest.mark.parametrize("sign", ["a token", "the canary", "credit"])
def test_a_sign_of_life_while_a_canary_is_under_way_ends_the_doubt(sign: str) -> None:
    engine = an_engine()
    for _ in range(20):
        engine.until(Want.ASK_CANARY, seconds=QUIET_SECONDS + LOOK_SECONDS_MAX)
        list(engine.wants(CANARY_SECONDS_MAX - 1))
        if sign == "the canary":
            engine.liveness.moved(engine.now)
        else:
            engine.liveness.answers_moved(engine.now, held=sign == "credit")
        assert engine.liveness.phase is Phase.MOVING


def test_figures_that_move_under_a_canary_give_it_more_time_and_no_more_than_that() -> None:
    engine = an_engine()
    engine.figures = standing_still
    engine.until(Want.ASK_CANARY)
    engine.figures = working  # a long prompt, read in parts: no canary gets in between
    assert Want.RESTART not in {want for _, want in engine.wants(LONG)}
    assert engine.liveness.phase is Phase.ASKED
    engine.figures = standing_still
    engine.until(Want.READ_FIGURES)
    assert engine.until(Want.RESTART) == CANARY_SECONDS_MAX


def test_a_full_engine_is_asked_nothing_and_has_more_time() -> None:
    engine = an_engine(in_flight=4)
    engine.figures = standing_still
    wants = list(engine.wants(LONG))
    assert {want for _, want in wants} == {Want.READ_FIGURES, Want.RESTART}
    assert wants[-1] == (HUNG_SECONDS_MAX, Want.RESTART)


def test_a_full_engine_whose_figures_move_is_only_busy() -> None:
    engine = an_engine(in_flight=400)
    engine.figures = working
    assert Want.RESTART not in {want for _, want in engine.wants(LONG)}


def test_a_full_engine_without_figures_is_not_judged() -> None:
    engine = an_engine(in_flight=4)
    engine.figures = lambda now: ()
    assert Want.RESTART not in {want for _, want in engine.wants(LONG)}
    engine.load = Load(3, 4)
    engine.until(Want.ASK_CANARY)
    assert engine.until(Want.RESTART) == CANARY_SECONDS_MAX


def test_a_full_engine_that_does_not_answer_even_for_its_figures_is_hung() -> None:
    assert an_engine(in_flight=4).until(Want.RESTART) == HUNG_SECONDS_MAX


def test_an_engine_that_fills_up_while_its_canary_is_under_way_gets_the_time_of_a_full_one() -> None:
    engine = an_engine()
    engine.figures = standing_still
    asked = engine.until(Want.ASK_CANARY)
    engine.load = Load(4, 4)
    assert engine.until(Want.RESTART) == HUNG_SECONDS_MAX - asked


def test_a_burst_after_a_long_rest_does_not_make_an_engine_look_hung() -> None:
    engine = an_engine(in_flight=0)
    engine.until(Want.READ_FIGURES)
    engine.load = Load(4, 4)
    engine.liveness.became_busy(engine.now)
    assert engine.until(Want.RESTART) == HUNG_SECONDS_MAX


def test_answers_that_nobody_reads_on_are_no_hang_however_long() -> None:
    engine = an_engine(in_flight=8)
    engine.liveness.answers_moved(engine.now, held=4)
    engine.figures = standing_still
    assert [want for _, want in engine.wants(LONG)] == [Want.READ_FIGURES]
    engine.liveness.answers_moved(engine.now, held=3)  # read on, it is judged from now
    assert engine.until(Want.RESTART) == HUNG_SECONDS_MAX


def test_an_idle_engine_is_asked_for_a_token_once_a_minute() -> None:
    engine = an_engine(in_flight=0)
    engine.figures = standing_still
    for _ in range(10):
        assert IDLE_CANARY_SECONDS <= engine.until(Want.ASK_CANARY) <= IDLE_CANARY_SECONDS + LOOK_SECONDS_MAX
        engine.liveness.moved(engine.now)
    assert engine.until(Want.RESTART) <= IDLE_CANARY_SECONDS + LOOK_SECONDS_MAX + CANARY_SECONDS_MAX


def test_an_attempt_after_a_rest_has_its_own_time_to_the_first_token() -> None:
    engine = an_engine(in_flight=0)
    list(engine.wants(IDLE_CANARY_SECONDS / 2))
    engine.load = Load(1, 4)
    engine.liveness.became_busy(engine.now)
    assert engine.until(Want.READ_FIGURES) == QUIET_SECONDS


def test_attempts_that_are_given_up_again_and_again_do_not_hide_a_hang() -> None:
    engine = an_engine(in_flight=0)
    while engine.now < LONG:
        engine.load = Load(1, 4)
        engine.liveness.became_busy(engine.now)
        if any(want is Want.RESTART for _, want in engine.wants(5.0)):
            break
        engine.load = Load(0, 4)
        engine.tick()
    assert engine.now < 2 * IDLE_CANARY_SECONDS


@pytest.mark.parametrize("failures", [1, 2, DOUBLINGS_MAX, DOUBLINGS_MAX + 1, 1000])
def test_an_engine_that_failed_before_is_given_more_time_up_to_a_bound(failures: int) -> None:
    engine = an_engine(failures=failures)
    engine.until(Want.ASK_CANARY)
    assert engine.until(Want.RESTART) == CANARY_SECONDS_MAX * 2 ** min(failures, DOUBLINGS_MAX)


def test_time_in_which_the_agent_itself_did_not_run_does_not_count() -> None:
    engine = an_engine()
    engine.until(Want.ASK_CANARY)
    for _ in range(100):
        engine.now += LAPSE_SECONDS
        assert engine.tick() is not Want.RESTART
    assert engine.until(Want.RESTART) == CANARY_SECONDS_MAX


def test_figures_that_come_late_change_nothing() -> None:
    engine = an_engine()
    engine.liveness.figures_read(1.0, ("1",))
    engine.liveness.figures_read(1.5, ("2",))
    assert engine.until(Want.READ_FIGURES) == QUIET_SECONDS


def test_no_engine_that_lives_is_ended_and_every_one_that_hangs_is() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(200):
        engine = an_engine(dice.randrange(9), dice.randrange(1, 5), dice.randrange(3))
        _live_for_a_while(engine, dice)
        engine.figures = dice.choice([standing_still, lambda now: None])
        engine.until(Want.RESTART)


def _live_for_a_while(engine: Played, dice: random.Random) -> None:
    """Work comes and goes, and some sign of life is never further away than half the shortest limit."""
    engine.figures = dice.choice([working, standing_still])
    sign_at = 0.0
    for _ in range(2000):
        if dice.random() < 0.05:
            before, engine.load = engine.load, Load(dice.randrange(9), engine.load.slots, engine.load.failures)
            if before.in_flight == 0 < engine.load.in_flight:
                engine.liveness.became_busy(engine.now)
        want = engine.tick()
        assert want is not Want.RESTART
        if engine.figures is not working and engine.now >= sign_at:
            sign_at = engine.now + dice.random() * CANARY_SECONDS_MAX / 2
            if dice.random() < 0.5:
                engine.liveness.moved(engine.now)
            else:
                engine.liveness.answers_moved(engine.now, held=0)
