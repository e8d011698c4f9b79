"""What attempts that go well tell about the speed of their engine, and of the model's engines in general."""

from __future__ import annotations

from shrk_coordinator.state.request import Attempt
from shrk_coordinator.state.roster import Roster

#: Of a shorter answer most is its first token, and the rest tells no pace.
PACE_TOKENS_MIN = 8


def learn_first_token(roster: Roster, now: float, attempt: Attempt) -> None:
    """Its first token came, of an answer from the beginning."""
    waited = now - attempt.begun_at
    if served := roster.served(attempt.request.model):
        attempt.standing.speed.first_token(now, waited, served.usual)
        served.usual.first_token(waited)
        served.first_tokens.add(waited)


def learn_answer(roster: Roster, now: float, attempt: Attempt, tokens: int) -> None:
    """Its answer is whole, of so many tokens with those that others gave."""
    served, took = roster.served(attempt.request.model), now - attempt.begun_at
    if served is None or attempt.request.probe:
        # One token says nothing about how long answers take.
        return
    served.answered(took)
    speed, generated = attempt.standing.speed, tokens - attempt.first_index
    if attempt.spoke_at is not None:
        took = now - attempt.spoke_at
    elif tokens == 0:
        # Nothing is generated, as for embeddings: the whole answer is its first token.
        speed.first_token(now, took, served.usual)
        served.usual.first_token(took)
    else:
        speed.answered()
        took -= served.usual.first or 0.0
    if generated >= PACE_TOKENS_MIN and took > 0.0:
        speed.pace(now, took / generated, served.usual)
        served.usual.pace(took / generated)
