"""Asks an engine, over its unix socket, whether it works: by tokens, since /health stays green while a core hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from shrk_contract.terms import Endpoint
from shrk_node_agent.engine.bodies import read_up_to
from shrk_node_agent.engine.engine import Task

#: A look at /health and /v1/models; both answer from memory.
LOOK_SECONDS_MAX = 5.0
#: The first token of all: on a GPU the first shapes are compiled for it, which takes a minute at worst.
FIRST_TOKEN_SECONDS_MAX = 180.0
#: Answers to our own few questions are small, save an embedding of some thousand numbers.
ANSWER_BYTES_MAX = 1024 * 1024

#: What is asked of each endpoint a task may offer: one token, or one embedding.
PROBES: Mapping[Task, Mapping[Endpoint, Mapping[str, Any]]] = {
    Task.GENERATE: {
        Endpoint.COMPLETIONS: {"prompt": "hi", "max_tokens": 1, "temperature": 0},
        Endpoint.CHAT_COMPLETIONS: {
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 1,
            "temperature": 0,
        },
    },
    Task.EMBED: {Endpoint.EMBEDDINGS: {"input": "hi"}},
}


class NotYet(Exception):
    """It does not answer, or not well; another try may go better."""


class Unfit(Exception):
    """It answers, and will never do what is wanted of it."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine has shown it can do."""

    endpoints: tuple[Endpoint, ...]
    #: None where it does not tell.
    context_tokens: int | None
    version: str


class EngineProbe:
    """A client of one engine, for its start-up only. Use as an async context manager."""

    def __init__(self, socket: Path, model: str, task: Task) -> None:
        self._socket = socket
        self._model = model
        self._task = task

    async def __aenter__(self) -> EngineProbe:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=str(self._socket)),
            base_url="http://engine",
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def listening(self) -> bool:
        """Whether /health is green: the cheap question, asked again and again."""
        try:
            status, _ = await self._ask("GET", "/health", LOOK_SECONDS_MAX)
        except NotYet:
            return False
        return status == HTTPStatus.OK

    async def abilities(self) -> Abilities:
        """Everything asked and one token had from each endpoint. Raises NotYet or Unfit."""
        context_tokens = await self._context_tokens()
        endpoints = await self._endpoints()
        status, body = await self._ask("GET", "/version", LOOK_SECONDS_MAX)
        version = str(_object(body).get("version", "")) if status == HTTPStatus.OK else ""
        return Abilities(endpoints, context_tokens, version)

    async def _context_tokens(self) -> int | None:
        status, body = await self._ask("GET", "/v1/models", LOOK_SECONDS_MAX)
        if status != HTTPStatus.OK:
            raise NotYet(f"/v1/models answers {status}")
        models = {str(entry.get("id")): entry for entry in _object(body).get("data", [])}
        if self._model not in models:
            raise Unfit(f"it serves {', '.join(sorted(models)) or 'no model'}, not {self._model}")
        tokens = models[self._model].get("max_model_len")
        return tokens if isinstance(tokens, int) else None

    async def _endpoints(self) -> tuple[Endpoint, ...]:
        """Those endpoints that gave a token. A base model without a chat template has no chat, for example."""
        shown, refusals = [], []
        for endpoint, question in PROBES[self._task].items():
            body = {"model": self._model, **question}
            status, answer = await self._ask("POST", endpoint.value, FIRST_TOKEN_SECONDS_MAX, body)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise NotYet(f"{endpoint.value} answers {status}: {_excerpt(answer)}")
            if status != HTTPStatus.OK:
                refusals.append(f"{endpoint.value} answers {status}: {_excerpt(answer)}")
            elif _has_output(_object(answer)):
                shown.append(endpoint)
            else:
                raise NotYet(f"{endpoint.value} answers without a token")
        if not shown:
            raise Unfit("; ".join(refusals))
        return tuple(shown)

    async def _ask(
        self, method: str, path: str, seconds: float, body: Mapping[str, Any] | None = None
    ) -> tuple[int, bytes]:
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method,
                    path,
                    data=None if body is None else orjson.dumps(body),
                    headers={"content-type": "application/json"},
                ) as response,
            ):
                return response.status, await read_up_to(response, ANSWER_BYTES_MAX)
        except TimeoutError as error:
            raise NotYet(f"{path} did not answer within {seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NotYet(f"{path}: {error}") from error


def _has_output(answer: dict[str, Any]) -> bool:
    match answer:
        case {"data": [{"embedding": [_, *_]}, *_]}:
            return True
        case {"usage": {"completion_tokens": int(tokens)}}:
            return tokens > 0
    return False


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotYet(f"an answer is not JSON: {_excerpt(body)}") from error
    return found if isinstance(found, dict) else {}


def _excerpt(body: bytes) -> str:
    return body[:200].decode(errors="replace")
