"""The simulated engine's HTTP server: its routes and how it starts, serves and ends."""

from __future__ import annotations

import asyncio
import math
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from shrk_node_agent.engine.engine import Task
from shrk_node_agent.engine.simulated import (
    chat,
    completions,
    derender,
    embeddings,
    messages,
    requests,
    responses,
    tokens,
)
from shrk_node_agent.engine.simulated.engine_room import VERSION, EngineRoom
from shrk_node_agent.engine.simulated.errors import Refusal, json_response
from shrk_node_agent.engine.simulated.faults import Fault, Faults, Kind
from shrk_node_agent.engine.simulated.sequences import Pace, Stepper

#: How long a stopping engine lets running answers go on: a supervisor's own grace is longer.
SHUTDOWN_SECONDS_MAX = 2.0

#: Connections that may wait to be accepted: on a unix socket one more is refused at once. As vLLM's.
BACKLOG = 2048

Route = Callable[[EngineRoom, web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What engine to simulate."""

    model: str
    task: Task = Task.GENERATE
    slots: int = 16
    context_tokens: int = 65_536
    pace: Pace = field(default_factory=Pace)
    faults: tuple[Fault, ...] = ()


@asynccontextmanager
async def serving(
    plan: Plan, socket: Path, *, clock: Callable[[], float], crash: Callable[[], None]
) -> AsyncIterator[EngineRoom]:
    """Serve on `socket` for as long as the context is open.

    `clock` gives seconds since 1970; `crash` kills the process, where a fault asks for it. OSError where the
    socket cannot be bound.
    """
    faults = Faults()
    for fault in plan.faults:
        faults.arm(fault)
    stepper = Stepper(plan.slots, plan.pace, faults, crash)
    room = EngineRoom(plan.model, plan.context_tokens, stepper, faults, clock)
    # A caller who leaves must end its sequences at once, not at the next write: hence handler_cancellation.
    runner = web.AppRunner(
        make_app(room, plan.task),
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS_MAX,
    )
    await runner.setup()
    stepping = asyncio.create_task(stepper.run())
    stepping.add_done_callback(lambda task: _end_with(task, crash))
    try:
        await web.UnixSite(runner, str(socket), backlog=BACKLOG).start()
        yield room
    finally:
        await runner.cleanup()
        stepping.cancel()
        with suppress(asyncio.CancelledError):
            await stepping


def _end_with(stepping: asyncio.Task[None], crash: Callable[[], None]) -> None:
    """An engine that cannot step any more must not go on taking requests."""
    if not stepping.cancelled() and (error := stepping.exception()) is not None:
        traceback.print_exception(error)
        crash()


def make_app(room: EngineRoom, task: Task) -> web.Application:
    """The routes of an engine; what the task does not offer is not found, as with vLLM."""
    app = web.Application(middlewares=[_answers_in_json], client_max_size=requests.BODY_BYTES_MAX)

    def add(method: str, path: str, route: Route) -> None:
        async def serve(request: web.Request) -> web.StreamResponse:
            return await route(room, request)

        app.router.add_route(method, path, serve)

    add("GET", "/v1/models", _models)
    add("GET", "/health", _health)
    add("GET", "/version", _version)
    add("GET", "/load", _load)
    add("GET", "/metrics", _metrics)
    add("GET", "/simulated/faults", _list_faults)
    add("POST", "/simulated/faults", _arm_fault)
    add("DELETE", "/simulated/faults", _clear_faults)

    def answers(path: str, route: Route) -> None:
        async def serve(room: EngineRoom, request: web.Request) -> web.StreamResponse:
            if room.faults.strike(Kind.ERROR, 0):
                raise Refusal("An error that was asked for", status=500, kind="InternalServerError")
            return await route(room, request)

        add("POST", path, serve)

    add("POST", "/tokenize", tokens.tokenize)
    add("POST", "/detokenize", tokens.detokenize)
    if task is Task.EMBED:
        answers("/v1/embeddings", embeddings.serve_embeddings)
        return app
    answers("/v1/chat/completions", chat.serve_chat)
    answers("/v1/completions", completions.serve_completion)
    answers("/v1/responses", responses.serve_response)
    add("GET", "/v1/responses/{response_id}", responses.find_response)
    add("POST", "/v1/responses/{response_id}/cancel", responses.find_response)
    answers("/v1/messages", messages.serve_messages)
    add("POST", "/v1/messages/count_tokens", messages.count_tokens)
    add("POST", "/v1/chat/completions/render", tokens.render_chat)
    add("POST", "/v1/completions/render", tokens.render_completion)
    answers("/inference/v1/generate", tokens.generate)
    add("POST", "/inference/v1/abort_requests", tokens.abort)
    add("POST", "/v1/chat/completions/derender", derender.derender_chat)
    add("POST", "/v1/completions/derender", derender.derender_completion)
    return app


@web.middleware
async def _answers_in_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return refusal.response()
    except ConnectionResetError:
        return web.Response()  # The caller has left; this reaches nobody.
    except web.HTTPRequestEntityTooLarge as error:
        limit = f"the body is larger than {requests.BODY_BYTES_MAX} bytes"
        return Refusal(limit, status=error.status, kind="RequestEntityTooLarge").response()
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        response = json_response({"detail": error.reason}, error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response


async def _models(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    permission = {
        "id": f"modelperm-{secrets.token_hex(8)}",
        "object": "model_permission",
        "created": room.now(),
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    model = {
        "id": room.model,
        "object": "model",
        "created": room.now(),
        "owned_by": "shrk-simulated",
        "root": room.model,
        "parent": None,
        "max_model_len": room.context_tokens,
        "permission": [permission],
    }
    return json_response({"object": "list", "data": [model]})


async def _health(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    return web.Response()


async def _version(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    return json_response({"version": VERSION})


async def _load(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    return json_response({"server_load": room.in_flight})


async def _metrics(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    stepper = room.stepper
    shown: list[tuple[str, str, str, float]] = [
        ("num_requests_running", "gauge", "Number of requests in model execution batches.", stepper.running),
        ("num_requests_waiting", "gauge", "Number of requests waiting to be processed.", stepper.waiting),
        ("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", stepper.used),
        ("prompt_tokens_total", "counter", "Number of prefill tokens processed.", stepper.prompt_tokens),
        ("generation_tokens_total", "counter", "Number of generation tokens processed.", stepper.generated_tokens),
    ]
    labels = f'{{engine="0",model_name="{room.model}"}}'
    lines = [
        f"# HELP vllm:{name} {text}\n# TYPE vllm:{name} {kind}\nvllm:{name}{labels} {float(value)}\n"
        for name, kind, text, value in shown
    ]
    content_type = "text/plain; version=1.0.0; charset=utf-8"
    return web.Response(body="".join(lines).encode(), headers={"Content-Type": content_type})


async def _list_faults(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    return json_response({"faults": [asdict(fault) for fault in room.faults.armed()]})


async def _arm_fault(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    body = await requests.read_object(request)
    room.faults.arm(_fault(body))
    room.stepper.faults_changed()
    return await _list_faults(room, request)


def _fault(body: dict[str, Any]) -> Fault:
    kind, token, times = body.get("kind"), body.get("token", 0), body.get("times")
    if kind not in set(Kind):
        raise Refusal(f"kind must be one of {', '.join(Kind)}, got {kind!r}", param="kind")
    if not isinstance(token, int) or token < 0:
        raise Refusal(f"token must be a whole number from 0, got {token!r}", param="token")
    if times is not None and (not isinstance(times, int) or times < 1):
        raise Refusal(f"times must be a whole number from 1, or left out for always, got {times!r}", param="times")
    fault = Fault(Kind(kind), token, times)
    if (factor := body.get("factor")) is not None:
        if fault.kind is not Kind.SLOW or not isinstance(factor, int | float) or not 1 <= factor < math.inf:
            raise Refusal(f"factor must be a number from 1, and the kind slow, got {factor!r}", param="factor")
        fault = replace(fault, factor=float(factor))
    if (text := body.get("text")) is not None:
        if fault.kind is not Kind.QUERY_OF_DEATH or not isinstance(text, str) or not text:
            raise Refusal(f"text must be some text, and the kind query-of-death, got {text!r}", param="text")
        fault = replace(fault, text=text)
    return fault


async def _clear_faults(room: EngineRoom, request: web.Request) -> web.StreamResponse:
    room.faults.clear()
    room.stepper.faults_changed()
    return await _list_faults(room, request)
