"""What second tries may cost all together, counted again beside the product's own accounts."""

from __future__ import annotations

from shrk_coordinator.state.budget import HEDGE_SHARE, RETRIES_MIN, RETRY_SHARE, SAVED_MAX
from simulation.story import Story


class Budgets:
    """Of one run."""

    def __init__(self) -> None:
        self.requests = 0
        self.hedges = 0
        self._saved = 0.0
        self._under_way = 0

    def request(self) -> None:
        """A request came that may be asked of nodes."""
        self.requests += 1
        self._saved = min(self._saved + RETRY_SHARE, SAVED_MAX)

    def hedge(self, story: Story) -> None:
        """A second node is asked."""
        self.hedges += 1
        limit = HEDGE_SHARE * self.requests + 1.0
        assert self.hedges <= limit + 1e-9, f"{self.hedges} hedges of {self.requests} requests, with {story.name}"

    def retry(self, story: Story) -> None:
        """A request has failed somewhere, and that says nothing of the node: it needs one of the retries."""
        story.denied = self._saved < 1.0 and self._under_way >= RETRIES_MIN
        if not story.denied:
            self._saved = max(0.0, self._saved - 1.0)
            self._under_way += 1
            story.retries += 1

    def only_errors(self, attempts: int, models: int) -> None:
        """All engines answered nothing but errors: nodes were asked hardly more often than there were requests."""
        limit = (1.0 + RETRY_SHARE) * self.requests + RETRIES_MIN * models
        assert attempts <= limit, f"{attempts} attempts for {self.requests} requests that nobody could answer"

    def over(self, story: Story) -> None:
        """A request has ended: its retries are not under way any more."""
        self._under_way -= story.retries
        story.retries = 0
