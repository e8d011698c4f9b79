"""Small questions to an engine on the way, and what its refusals mean there."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import orjson

from shrk_node_agent.attempts import Failed
from shrk_node_agent.engine.bodies import read_up_to
from shrk_node_agent.engine.events import EngineSentNonsense, reading
from shrk_node_agent.engine.refusals import from_response

#: A prompt's ids or an answer's so far, in JSON: eight bytes each, and contexts have a million of them.
ANSWER_BYTES_MAX = 32 * 1024 * 1024


class CannotResume(Exception):
    """This answer cannot be continued here in the way that was asked for; why."""


class EngineFailed(Exception):
    """The engine failed at a question, and not because of it."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class Asking:
    """Questions to one engine."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that the engine answers. Raises CannotResume, EngineFailed and EngineSentNonsense."""
        async with self.post(path, body) as response:
            raw = await read_up_to(response, ANSWER_BYTES_MAX + 1)
            if response.status != 200:
                raise refused(from_response(response.status, raw))
        if len(raw) > ANSWER_BYTES_MAX:
            raise EngineSentNonsense(f"more than {ANSWER_BYTES_MAX:,} bytes from {path}")
        with reading(f"an answer from {path}"):
            return orjson.loads(raw)

    def post(self, path: str, body: dict[str, Any]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The engine's response, for whoever enters it; leaving it early makes the engine abort."""
        return self._session.post(
            f"http://engine{path}", data=orjson.dumps(body), headers={"Content-Type": "application/json"}
        )


def refused(failed: Failed) -> CannotResume | EngineFailed:
    """What a refusal means: the caller has been told already that the request itself is right."""
    if 400 <= failed.http_status < 500:
        return CannotResume(f"the engine says: {failed.message}")
    return EngineFailed(failed)
