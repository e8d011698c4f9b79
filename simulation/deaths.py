"""Queries of death, as the judge knows them: what engines crashed of, and who may be asked for it from then on."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.suspects import CRASHES_MAX, NODES_MAX, POISONED_SECONDS
from simulation.asks import Kind
from simulation.story import Story, Try


class Deaths:
    """Requests that the coordinator has been told engines crashed of, by what their callers sent."""

    def __init__(self) -> None:
        self._crashes: dict[bytes, dict[EngineLife, NodeId]] = {}
        self._until: dict[bytes, float] = {}
        #: What was ever blamed.
        self._ever: set[bytes] = set()

    def crashed(self, attempt: Try, now: float) -> None:
        """An engine crashed, and this attempt had no token yet."""
        digest = attempt.story.ask.digest
        if now >= self._until.get(digest, 0.0):
            self._crashes.pop(digest, None)
        self._crashes.setdefault(digest, {})[attempt.life] = attempt.site.node_id
        self._until[digest] = now + POISONED_SECONDS
        self._ever.add(digest)

    def ever(self, story: Story) -> bool:
        """Whether an engine has ever crashed of it."""
        return story.ask.digest in self._ever

    def spoke(self, attempt: Try) -> None:
        """A token came: it crashes nobody."""
        self._crashes.pop(attempt.story.ask.digest, None)

    def nodes(self, story: Story, now: float) -> Collection[NodeId]:
        """Where engines crashed of it."""
        if not self._crashes:
            return ()
        digest = story.ask.digest
        if now >= self._until.get(digest, 0.0):
            return ()
        return self._crashes.get(digest, {}).values()

    def convicted(self, story: Story, now: float) -> bool:
        """It is asked of nobody any more."""
        blamed = self.nodes(story, now)
        return len(set(blamed)) >= NODES_MAX or len(blamed) >= CRASHES_MAX

    def begun(self, attempt: Try, offering: Collection[NodeId], others: Iterable[Try], now: float) -> None:
        """A node is asked; `offering`: all that offer the model; `others`: attempts under way."""
        story = attempt.story
        if not (blamed := self.nodes(story, now)):
            return
        node = attempt.site.node_id
        if story.pins:
            return  # It has shown that it crashes nobody.
        assert not self.convicted(story, now), f"{story.name} is asked of {node}, and has crashed {len(blamed)} engines"
        assert node not in blamed or set(offering) <= set(blamed), f"{story.name} is asked of {node}, which it crashed"
        assert node not in self.reading(others, now), f"{story.name} is asked of {node}, beside another suspect"

    def reading(self, attempts: Iterable[Try], now: float) -> set[NodeId]:
        """Of these attempts, where suspects run that have not said anything."""
        if not self._crashes:
            return set()
        return {a.site.node_id for a in attempts if _silent(a) and self.nodes(a.story, now)}


def _silent(attempt: Try) -> bool:
    """Whether the coordinator knows of no token of it; of an answer in one piece it does only at the end."""
    return attempt.spoke_at is None or attempt.story.ask.kind is not Kind.STREAMED
