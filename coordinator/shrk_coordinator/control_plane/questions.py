"""What nodes ask about themselves: their verdict (`shrk why`), and whether a token comes back (`shrk doctor`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shrk_contract.terms import VERDICT_INTERVAL_SECONDS
from shrk_contract.v1 import link_pb2
from shrk_coordinator.control_plane.links import CoordinatorFrame, Link
from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.probing import Probed
from shrk_coordinator.state.roster import Roster
from shrk_coordinator.state.verdict import eligible, judge

#: Probes under way together: each is one request, and more of them would take the places of callers. An owner who
#: comes later is told so.
PROBES_MAX = 256

Probe = Callable[[NodeId, str], Awaitable[Probed]]


class Questions:
    """Answers them. All methods run in the event loop."""

    def __init__(
        self,
        roster: Roster,
        probe: Probe,
        now: Callable[[], float],
        unix_ms: Callable[[], int],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        """`now` tells monotonic seconds; `later` does something after so many of them."""
        self._roster = roster
        self._probe = probe
        self._now = now
        self._unix_ms = unix_ms
        self._later = later
        self._probes: set[asyncio.Task[None]] = set()

    def asked(self, link: Link, frame: link_pb2.NodeFrame) -> None:
        """Take in one question."""
        match frame.WhichOneof("frame"):
            case "ask_verdict":
                self._verdict_asked(link)
            case "probe":
                self._probe_asked(link, frame.probe.probe_id, frame.probe.model)
            case kind:
                raise AssertionError(f"{kind} is no question")

    async def stop(self) -> None:
        """End the probes under way."""
        for task in self._probes:
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    # --- verdicts ------------------------------------------------------------------------------------

    def _verdict_asked(self, link: Link) -> None:
        if link.verdict_due:
            return  # one answer will do for both
        wait = link.verdict_told_at + VERDICT_INTERVAL_SECONDS - self._now()
        if wait <= 0:
            self._tell(link)
        else:
            link.verdict_due = True
            self._later(wait, lambda: self._tell(link))

    def _tell(self, link: Link) -> None:
        now = self._now()
        link.verdict_due, link.verdict_told_at = False, now
        node = self._roster.nodes.get(link.node_id)
        # Another link has taken its place meanwhile, or this one is about to be admitted: nobody is there to be told.
        if node is not None and node.link == link.id:
            link.send(CoordinatorFrame(verdict=self._verdict(link.node_id, now)))

    def _verdict(self, node_id: NodeId, now: float) -> link_pb2.Verdict:
        node = self._roster.nodes[node_id]
        verdict = judge(self._roster, node, now)
        return link_pb2.Verdict(
            checks=[
                link_pb2.Check(
                    name=check.name,
                    passed=check.passed,
                    reason=check.reason,
                    next_action=check.next_action,
                    word=check.word or "",
                )
                for check in verdict.checks
            ],
            at_unix_ms=self._unix_ms(),
            state=verdict.state,
            reason=verdict.reason,
            next_action=verdict.next_action,
            since_ms=max(0, round((now - verdict.since) * 1000)),
            eligible=eligible(node, now),
            address=node.address,
        )

    # --- probes --------------------------------------------------------------------------------------

    def _probe_asked(self, link: Link, probe_id: int, model: str) -> None:
        if len(self._probes) >= PROBES_MAX:
            busy = Probed(False, "the coordinator probes too many nodes at this moment", "Try again in a minute.")
            link.send(_result(probe_id, busy))
            return
        task = asyncio.create_task(self._run_probe(link, probe_id, model), name=f"probe-{link.id}-{probe_id}")
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _run_probe(self, link: Link, probe_id: int, model: str) -> None:
        link.send(_result(probe_id, await self._probe(link.node_id, model)))


def _result(probe_id: int, probed: Probed) -> CoordinatorFrame:
    result = link_pb2.ProbeResult(
        probe_id=probe_id,
        passed=probed.passed,
        reason=probed.reason,
        first_token_ms=probed.first_token_ms,
        next_action=probed.next_action,
        model=probed.model,
    )
    return CoordinatorFrame(probe_result=result)
