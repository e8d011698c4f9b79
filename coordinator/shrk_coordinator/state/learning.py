"""What attempts that go well tell about the speed of their engine, and of the model's engines in general."""

from __future__ import annotations

from shrk_coordinator.state.request import Attempt
from shrk_coordinator.state.roster import Roster


def learn_first_token(roster: Roster, now: float, attempt: Attempt) -> None:
    """Its first token came, of an answer from the beginning."""
    waited = now - attempt.begun_at
    if served := roster.served(attempt.request.model):
        attempt.standing.speed.first_token(now, waited, served.usual)
        served.usual.first_token(waited)
        served.first_tokens.add(waited)


def learn_answer(roster: Roster, now: float, attempt: Attempt, tokens: int) -> None:
    """Its answer is whole, of so many tokens with those that others gave."""
    speed, served = attempt.standing.speed, roster.served(attempt.request.model)
    if served is None or attempt.request.probe:
        # One token says nothing about how long answers take.
        return
    served.answered(now - attempt.begun_at)
    if attempt.spoke_at is None:
        speed.answered()
    generated = tokens - attempt.first_index
    if generated < 1:
        return
    since = attempt.begun_at if attempt.spoke_at is None else attempt.spoke_at
    speed.pace(now, (now - since) / generated, served.usual)
    served.usual.pace((now - since) / generated)
