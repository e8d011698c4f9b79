"""The callers' HTTP: routes, the shell around every handler, and the relayed endpoints.

Every answer, errors of the framework included, has the same body shape and the same headers.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

import orjson
import structlog
from aiohttp import web

from shrk_contract.terms import Endpoint
from shrk_coordinator.data_plane import conversation, history, models, nodes
from shrk_coordinator.data_plane.admission import (
    Authenticate,
    authenticated,
    expect_continue,
    parse_object,
    read_body,
)
from shrk_coordinator.data_plane.chunk_pipe import CallerGone
from shrk_coordinator.data_plane.dialects import DIALECTS, Dialect, continuable
from shrk_coordinator.data_plane.dialects.dialect import Body, Envelope
from shrk_coordinator.data_plane.errors import request_name, response_of
from shrk_coordinator.data_plane.fanned import FannedAnswer, calls_of
from shrk_coordinator.data_plane.order import Call
from shrk_coordinator.data_plane.relay import Patience, Relay, Shared
from shrk_coordinator.data_plane.streamed import StreamedRelay
from shrk_coordinator.data_plane.whole import BufferedRelay, WholeRelay
from shrk_coordinator.errors import (
    ApiError,
    DatabaseError,
    caller_not_admitted,
    database_failed,
    internal,
    invalid_value,
    method_not_allowed,
    model_not_found,
    overloaded,
    stopping,
    unsupported_endpoint,
)
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.records import Scope
from shrk_coordinator.state.coordinator import CoordinatorState
from shrk_coordinator.state.events import RequestArrived, RequestId
from shrk_coordinator.streams import Announcements, LinkPort, NodeNames, RequestPort

#: One handler set, on every prefix that clients are known to use.
PREFIXES = ("/v1", "/api/v1", "")
#: What a caller may ask us to echo; anything else would be an injection into the answer's headers.
_CLIENT_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")
#: Requests under way at once. Each streamed one may hold its credit here, and a task.
REQUESTS_OPEN_MAX = 20_000
#: How a caller chooses, for structured output, between a stream as it comes and one that is held back until whole.
BUFFER_HEADER = "X-Shrk-Structured-Output"
_EXPOSED = "x-request-id, request-id, x-shiver-request-id, x-shiver-node, openai-processing-ms, retry-after"

log = structlog.get_logger("shrk.http")


class Requests(Announcements, Protocol):
    """The driver, as the callers' side uses it."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    @property
    def open_requests(self) -> int:
        """Requests under way."""
        ...

    def open(self, request: RequestPort, arrived: RequestArrived) -> None:
        """A request wants a node."""
        ...

    def close(self, request_id: RequestId) -> None:
        """The caller has its answer, or is gone."""
        ...


@dataclass(slots=True)
class Turn:
    """One HTTP request on its way through: its id, and what its answer's headers say."""

    request: web.Request
    request_id: bytes = field(default_factory=lambda: os.urandom(16))
    started: float = field(default_factory=time.monotonic)
    node_name: str = ""

    def headers(self) -> dict[str, str]:
        """The headers that every answer has."""
        name = request_name(self.request_id)
        headers = {
            "x-request-id": name,
            "request-id": name,
            "x-shiver-request-id": name,
            "openai-processing-ms": str(int((time.monotonic() - self.started) * 1000)),
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": _EXPOSED,
        }
        if self.node_name:
            headers["x-shiver-node"] = self.node_name
        client_id = self.request.headers.get("X-Client-Request-Id")
        if client_id is not None and _CLIENT_REQUEST_ID.fullmatch(client_id):
            headers["X-Client-Request-Id"] = client_id
        return headers


IpNetwork = IPv4Network | IPv6Network
Handler = Callable[[Turn], Awaitable[web.StreamResponse]]
Respond = Callable[[web.Request, Callable[[], dict[str, str]]], Awaitable[web.StreamResponse]]


class CallersHttp:
    """Everything callers can reach."""

    def __init__(
        self,
        requests: Requests,
        links: LinkPort,
        state: CoordinatorState,
        authenticate: Authenticate,
        node_name: NodeNames,
        metrics: Metrics,
        patience: Patience | None = None,
        proxies: Sequence[IpNetwork] = (),
        buffers: bool = False,
        routes: Mapping[str, Handler] | None = None,
    ) -> None:
        """`proxies`: where requests must come from, besides this machine; empty: anywhere. `buffers`: streams
        of structured output are held back until whole, unless a request says otherwise. `routes`: other GETs."""
        self._requests = requests
        self._shared = Shared(links, requests, patience or Patience())
        self._proxies, self._routes = proxies, routes or {}
        self._buffers = buffers
        self._state = state
        self._roster = state.roster
        self._authenticate = authenticate
        self._node_name = node_name
        self._metrics = metrics
        self._started_unix = int(time.time())
        self.stopping = False
        #: Allowed methods by path pattern, for an honest 405.
        self._methods: list[tuple[re.Pattern[str], str]] = []

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=0)
        for prefix in PREFIXES:
            for dialect in DIALECTS.values():
                path = prefix + str(dialect.endpoint).removeprefix("/v1")
                self._add(app, "POST", path, self._relayed(dialect))
            self._add(app, "POST", f"{prefix}/chat", self._relayed(DIALECTS[Endpoint.CHAT_COMPLETIONS]))
            self._add(app, "GET", f"{prefix}/models", self._models)
            self._add(app, "GET", f"{prefix}/models/{{model:.+}}", self._model)
            for path in ("nodes", "nodes/"):
                self._add(app, "GET", f"{prefix}/{path}", self._nodes)
            self._add(app, "GET", f"{prefix}/nodes/{{id}}", self._node)
            for path in ("requests", "generations"):
                self._add(app, "GET", f"{prefix}/{path}/{{id}}", self._request)
        own = {"/": self._root, "/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics_text}
        for path, handler in (own | dict(self._routes)).items():
            self._add(app, "GET", path, handler)
        app.router.add_route("*", "/{tail:.*}", self._shell("other", self._nothing_here))
        return app

    def _add(self, app: web.Application, method: str, path: str, handler: Handler) -> None:
        # A label per route, not per path: models in paths must not become labels.
        endpoint = path.partition("{")[0].rstrip("/") or "/"
        shell = self._shell(endpoint, handler)
        if method == "POST":
            app.router.add_post(path, shell, expect_handler=expect_continue)
        else:
            app.router.add_get(path, shell)
        pattern = re.compile(re.sub(r"\\\{[^}]*\\\}", ".+", re.escape(path)))
        self._methods.append((pattern, method if method == "POST" else "GET, HEAD"))

    def _shell(self, endpoint: str, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Around every handler: the request id, errors as values for callers, and the count."""
        count = self._metrics.requests
        # Looked up once: the look-up costs more than the count, and nearly every answer is this one.
        answered = count.labels(endpoint, "200")

        async def serve(request: web.Request) -> web.StreamResponse:
            turn = Turn(request)
            try:
                if self._proxies and not self._came_through_proxy(request):
                    raise caller_not_admitted()
                response = await handler(turn)
            except ApiError as error:
                response = response_of(error, turn.request_id, turn.headers())
                if error.status in (408, 413):
                    # The rest of the body is still coming, and is not worth reading.
                    response.force_close()
            except DatabaseError as error:
                log.error("the database failed", why=str(error), request=turn.request_id.hex())
                response = response_of(database_failed(), turn.request_id, turn.headers())
            except CallerGone:
                self._metrics.callers_left.inc()
                response = web.Response(status=499)
                response.force_close()
            except asyncio.CancelledError:
                self._metrics.callers_left.inc()
                raise
            except Exception:
                # A surprise of ours: the caller gets the id, the log gets the rest.
                log.exception("request failed", request=turn.request_id.hex())
                response = response_of(internal(), turn.request_id, turn.headers())
                if request.writer.output_size and request.transport is not None:
                    # An answer has begun: a second one must not be written into it.
                    request.transport.abort()
            if response.status == 200:
                answered.inc()
            else:
                count.labels(endpoint, str(response.status)).inc()
            return response

        return serve

    def _came_through_proxy(self, request: web.Request) -> bool:
        """Whether the connection is from one of the proxies, or from this machine."""
        name = request.transport.get_extra_info("peername") if request.transport is not None else None
        if not isinstance(name, tuple):
            return False
        address = ip_address(name[0])
        return address.is_loopback or any(address in network for network in self._proxies)

    # --- relayed endpoints -------------------------------------------------------------------------

    def _relayed(self, dialect: Dialect) -> Handler:
        first_byte = self._metrics.first_byte.labels(str(dialect.endpoint))

        async def answer(turn: Turn) -> web.StreamResponse:
            calls, per_prompt = await self._admit(turn, dialect)
            relays, respond = self._answer_to(calls, per_prompt)

            def headers() -> dict[str, str]:
                first_byte.observe(time.monotonic() - turn.started)
                first = relays[0]
                turn.node_name = self._node_name(first.node_id) if first.node_id else ""
                return turn.headers()

            held = sum(len(call.body) for call in calls)
            too_many = self._requests.open_requests + len(relays) > REQUESTS_OPEN_MAX
            if too_many or not self._shared.held.take(held):
                raise overloaded()
            opened = 0
            try:
                for relay in relays:
                    self._requests.open(relay, self._arrived(relay.call))
                    opened += 1
                return await respond(turn.request, headers)
            finally:
                self._shared.held.give_back(held)
                for relay in relays[:opened]:
                    relay.let_go()
                    # Synchronous, so that a caller's disconnect, which cancels this handler, reaches the node at once.
                    self._requests.close(relay.call.request_id)

        return answer

    def _answer_to(self, calls: Sequence[Call], per_prompt: int) -> tuple[Sequence[Relay], Respond]:
        """What a request becomes: one relay, or one for each of several answers in one stream."""
        if len(calls) > 1:
            fanned = FannedAnswer(calls, per_prompt, self._shared)
            return fanned.strands, fanned.respond
        [call] = calls
        relay: Relay
        if not call.streaming:
            relay = WholeRelay(call, self._shared)
        elif call.buffered:
            relay = BufferedRelay(call, self._shared)
        else:
            relay = StreamedRelay(call, self._shared)
        return [relay], relay.respond

    def _arrived(self, call: Call) -> RequestArrived:
        return RequestArrived(
            self._requests.now(),
            call.request_id,
            call.envelope.model,
            call.dialect.endpoint,
            streaming=call.streaming and not call.buffered,
            by_ids=call.by_ids,
            key_id=call.key_id,
            digest=call.digest,
            affinity=call.affinity,
            sibling_of=call.sibling_of,
            sibling=call.choice_index,
        )

    async def _admit(self, turn: Turn, dialect: Dialect) -> tuple[Sequence[Call], int]:
        """Every check that needs no node: what is asked of nodes, and how many answers of it a prompt gets.

        Raises ApiError.
        """
        if self.stopping:
            raise stopping()
        key = await authenticated(turn.request, self._authenticate)
        raw = await read_body(turn.request)
        body = parse_object(raw)
        dialect.check(body)
        streaming = bool(body.get("stream"))
        options = body.get("stream_options") or {}
        call = Call(
            request_id=turn.request_id,
            dialect=dialect,
            envelope=Envelope(dialect.id_prefix + turn.request_id.hex(), int(time.time()), body["model"]),
            body=raw,
            streaming=streaming,
            include_usage=bool(options.get("include_usage")),
            # Positive and of 31 bits: every engine takes it.
            seed=int.from_bytes(os.urandom(4), "big") >> 1,
            by_ids=continuable.by_ids(body),
            buffered=streaming and self._buffered(turn.request, body),
            key_id=key.id,
            digest=hashlib.blake2b(raw, digest_size=16).digest(),
            affinity=conversation.affinity(dialect, body, len(raw), key.id),
        )
        several = streaming and not call.buffered and dialect.streams
        return (calls_of(call, body) if several else [call]), body.get("n") or 1

    def _buffered(self, request: web.Request, body: Body) -> bool:
        """Whether this stream is held back until it is whole. Raises ApiError."""
        wish = request.headers.get(BUFFER_HEADER)
        if wish not in (None, "stream", "buffer"):
            raise invalid_value(BUFFER_HEADER, "'stream' or 'buffer'")
        if not continuable.structured(body):
            return False
        return self._buffers if wish is None else wish == "buffer"

    # --- the coordinator's own ---------------------------------------------------------------------

    async def _models(self, turn: Turn) -> web.StreamResponse:
        await authenticated(turn.request, self._authenticate)
        return _json(models.listing(self._state, self._started_unix, self._requests.now(), self._node_name), turn)

    async def _model(self, turn: Turn) -> web.StreamResponse:
        await authenticated(turn.request, self._authenticate)
        model = turn.request.match_info["model"]
        if not self._roster.knows(model):
            raise model_not_found(model, self._roster.nearest(model))
        now = self._requests.now()
        return _json(models.entry(self._state, model, self._started_unix, now, self._node_name), turn)

    async def _nodes(self, turn: Turn) -> web.StreamResponse:
        key = await authenticated(turn.request, self._authenticate)
        return _json(nodes.listing(self._state, turn.request.query, key, self._moment(), self._node_name), turn)

    async def _node(self, turn: Turn) -> web.StreamResponse:
        key = await authenticated(turn.request, self._authenticate)
        name = turn.request.match_info["id"]
        return _json(nodes.one(self._state, name, key, self._moment(), self._node_name), turn)

    def _moment(self) -> nodes.Moment:
        return nodes.Moment(self._requests.now(), time.time())

    async def _request(self, turn: Turn) -> web.StreamResponse:
        key = await authenticated(turn.request, self._authenticate)
        entries = history.find(self._state.journal, turn.request.match_info["id"], key)
        return _json(history.document(entries, self._requests.now(), time.time(), self._node_name), turn)

    async def _root(self, turn: Turn) -> web.StreamResponse:
        return _json({"name": "shrk coordinator", "api": "/v1", "health": "/healthz"}, turn)

    async def _healthz(self, turn: Turn) -> web.StreamResponse:
        return _json({"status": "ok"}, turn)

    async def _readyz(self, turn: Turn) -> web.StreamResponse:
        if self.stopping:
            raise stopping()
        return _json({"status": "ready"}, turn)

    async def _metrics_text(self, turn: Turn) -> web.StreamResponse:
        await authenticated(turn.request, self._authenticate, Scope.ADMIN)
        headers = turn.headers() | {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._metrics.exposition(), headers=headers)

    async def _nothing_here(self, turn: Turn) -> web.StreamResponse:
        request = turn.request
        for pattern, allowed in self._methods:
            if pattern.fullmatch(request.path):
                raise method_not_allowed(request.method, request.path, allowed)
        raise unsupported_endpoint(request.method, request.path)


def _json(payload: object, turn: Turn) -> web.Response:
    return web.Response(body=orjson.dumps(payload), content_type="application/json", headers=turn.headers())
