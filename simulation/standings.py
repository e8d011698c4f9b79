"""What nodes have truly done: by it the judge sees whether a breaker is open for a reason, and shut where it has to be.

Kept apart from the product's own records, and told the same facts: tokens, failures, stalls.
"""

from __future__ import annotations

from dataclasses import dataclass

from shrk_coordinator.state.breaker import FAILURES_MAX, OPEN_SECONDS, OPEN_SECONDS_MAX, PROBE_SECONDS_MAX, Breaker
from shrk_coordinator.state.lives import EngineLife
from simulation.story import Try

#: A node, and a model on it.
Place = tuple[str, str]


@dataclass(slots=True)
class Record:
    """One model on one node since its last token."""

    failures: int = 0
    stalls: int = 0
    #: The life whose loss was counted, and the one that failed last.
    lost: EngineLife | None = None
    lost_at: float = 0.0
    failed: EngineLife | None = None
    #: Nothing new is asked of the life that failed last before this.
    shut_until: float = 0.0
    #: The one attempt that shows whether it is well again.
    probe: Try | None = None


class Standings:
    """All of them."""

    def __init__(self) -> None:
        self._records: dict[Place, Record] = {}

    def _of(self, attempt: Try) -> Record:
        return self._records.setdefault((attempt.site.node_id, attempt.story.ask.model), Record())

    def begun(self, attempt: Try, now: float) -> None:
        """A node is asked."""
        record = self._of(attempt)
        # For an answer that has begun any node is better than none; and so is one that only stalled.
        if record.failures < FAILURES_MAX or record.stalls or attempt.story.pins:
            return
        place = f"{attempt.site.node_id} is asked for {attempt.story.name}"
        if attempt.life == record.failed:
            assert now >= record.shut_until, f"{place}, where {record.failures} failed one after another"
        if (probe := record.probe) is not None and probe.life == attempt.life:
            assert now - probe.begun_at >= PROBE_SECONDS_MAX, f"{place} while another request tries whether it is well"
        record.probe = attempt

    def spoke(self, attempt: Try) -> None:
        """A token came: nothing is held against it."""
        self._records.pop((attempt.site.node_id, attempt.story.ask.model), None)

    def stalled(self, attempt: Try) -> None:
        """None came for too long."""
        self._of(attempt).stalls += 1

    def failed(self, attempt: Try, now: float, *, confirmed: bool) -> bool:
        """A request failed there; `confirmed`: with the engine's whole life, which counts once, if it is so. True where
        it is: the life has not been lost before, or this was under way when it was."""
        record = self._of(attempt)
        if confirmed and record.lost == attempt.life and attempt.begun_at <= record.lost_at:
            return True
        news = confirmed and record.lost != attempt.life
        if confirmed:
            record.lost, record.lost_at = attempt.life, now
        record.failed = attempt.life
        record.failures += 1
        if record.failures >= FAILURES_MAX and now >= record.shut_until:
            record.shut_until = now + OPEN_SECONDS
        return news

    def over(self, attempt: Try) -> None:
        """However it ended."""
        record = self._records.get((attempt.site.node_id, attempt.story.ask.model))
        if record is not None and record.probe is attempt:
            record.probe = None

    def justify(self, place: Place, breaker: Breaker, now: float) -> None:
        """A breaker is open: for what was done there, and not for ever."""
        record = self._records.get(place, Record())
        assert record.failures >= FAILURES_MAX or record.stalls, f"the breaker of {place} is open without a reason"
        assert breaker.open_until - now <= OPEN_SECONDS_MAX, f"the breaker of {place} is open for too long"
