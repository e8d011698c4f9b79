"""Requests that wait for a node, model by model: first those whose answer has begun, then each in its turn.

Two kinds wait beside the others, and longer: suspects, of whom one at a time runs on each node, and answers to a
request of which others are under way already, which take what nobody else wants.

Nobody waits in vain: who could not be served in time, as places have come free lately, is told so at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from shrk_coordinator.state.events import FailureDetail, RequestId
from shrk_coordinator.state.request import Request

#: A request that finds no node waits this long for one: a link is dialled anew within a second, an engine that crashed
#: is back within a few.
WAIT_SECONDS_MAX = 10.0
#: A suspect waits for its trial this long: all others that were read where an engine crashed may be before it.
SUSPECTS_SECONDS_MAX = 60.0
#: Requests per model that wait without having begun to answer; those that have are never turned away.
WAITING_MAX = 64


@dataclass(slots=True)
class _Line:
    """Those of one model, in the order in which they came."""

    begun: dict[RequestId, Request] = field(default_factory=dict)
    suspects: dict[RequestId, Request] = field(default_factory=dict)
    new: dict[RequestId, Request] = field(default_factory=dict)
    siblings: dict[RequestId, Request] = field(default_factory=dict)

    @property
    def all(self) -> tuple[dict[RequestId, Request], ...]:
        """Every kind."""
        return self.begun, self.suspects, self.new, self.siblings


class Waiting:
    """All requests without an attempt."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._requests: dict[RequestId, Request] = {}

    def __contains__(self, request_id: RequestId) -> bool:
        return request_id in self._requests

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        """In the order in which they came."""
        return iter(list(self._requests.values()))

    def models(self) -> list[str]:
        """Models that someone waits for."""
        return list(self._lines)

    def of(self, model: str) -> list[Request]:
        """Who waits for a model, in their order."""
        line = self._lines.get(model)
        if line is None:
            return []
        return [request for kind in line.all for request in kind.values()]

    def anyone(self, model: str) -> bool:
        """Whether someone waits for a model."""
        return model in self._lines

    def suspected(self, request: Request) -> bool:
        """Whether it waits among the suspects."""
        line = self._lines.get(request.model)
        return line is not None and request.request_id in line.suspects

    def new(self, model: str) -> int:
        """How many wait for a model whose answer has not begun."""
        line = self._lines.get(model)
        return len(line.new) if line else 0

    def join(self, now: float, request: Request, lost: FailureDetail | None, *, suspect: bool = False) -> bool:
        """Let a request wait; False where too many do. `lost`: what ended its last attempt."""
        line = self._lines.get(request.model) or _Line()
        seconds = WAIT_SECONDS_MAX
        if request.delivered:
            kind = line.begun
        elif suspect:
            kind, seconds = line.suspects, SUSPECTS_SECONDS_MAX
        elif request.sibling:
            kind, seconds = line.siblings, request.deadline - now
        else:
            kind = line.new
        if (kind is line.new or kind is line.suspects) and len(kind) >= WAITING_MAX:
            return False
        kind[request.request_id] = request
        self._lines[request.model] = line
        self._requests[request.request_id] = request
        if lost is not None or not request.wait_until:
            # Whoever was turned away by a node waits on, and not anew.
            request.wait_until = min(now + seconds, request.deadline)
        request.lost = lost
        return True

    def leave(self, request: Request) -> None:
        """It waits no more, if it did."""
        if self._requests.pop(request.request_id, None) is None:
            return
        line = self._lines[request.model]
        for kind in line.all:
            kind.pop(request.request_id, None)
        if not any(line.all):
            del self._lines[request.model]

    def overdue(self, now: float) -> list[Request]:
        """Those that have waited long enough."""
        return [request for request in self._requests.values() if now >= request.wait_until]
