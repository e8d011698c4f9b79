"""`shrk explain ID`: what became of a request, attempt by attempt, in words."""

from __future__ import annotations

import asyncio
import json as jsons
import os
import re
import sys
from typing import Annotated, Any

import aiohttp
import typer

from shrk_cli.errors import Exit, Trouble

# Plain help: the same in a terminal, a pipe and a bug report.
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

#: Where `shrk dev` and a coordinator with default settings listen.
DEFAULT_BASE_URL = "http://127.0.0.1:8080/v1"
_ID = re.compile(r"(?:req_|chatcmpl-|cmpl-|embd-)?[0-9a-f]{32}")
#: The coordinator answers from memory.
ANSWER_SECONDS_MAX = 10.0

_HOW = {None: "from the beginning", "by_ids": "continued by token ids", "replay": "continued by a verified replay"}


@app.command()
def explain(
    request_id: Annotated[
        str, typer.Argument(metavar="ID", help="The x-request-id of the answer, or the answer's id.")
    ],
    base_url: Annotated[
        str, typer.Option(envvar="SHRK_BASE_URL", metavar="URL", help="Where callers connect.")
    ] = DEFAULT_BASE_URL,
    json: Annotated[bool, typer.Option("--json", help="The coordinator's own document.")] = False,
) -> None:
    """What became of a request: which nodes were asked, why it moved, and where the seams are.

    Reads the key that made the request (or an admin's) from SHRK_API_KEY.
    """
    if not _ID.fullmatch(request_id):
        raise Trouble(
            f"{request_id[:80]!r} is no request id",
            why="An id looks like req_ and 32 hexadecimal digits; answers carry it in the header x-request-id.",
            remedy="shrk explain req_...",
            code=Exit.USAGE,
        )
    if not base_url.startswith(("http://", "https://")):
        raise Trouble(
            f"{base_url[:80]!r} is no address of a coordinator",
            remedy=f"with its scheme: --base-url {DEFAULT_BASE_URL}",
            code=Exit.USAGE,
        )
    key = os.environ.get("SHRK_API_KEY")
    if not key:
        raise Trouble(
            "no key to ask with",
            why="SHRK_API_KEY is not set, and only the key that made a request may look it up.",
            remedy=f"SHRK_API_KEY=KEY shrk explain {request_id}",
            code=Exit.USAGE,
        )
    document = asyncio.run(_ask(base_url.rstrip("/"), request_id, key))
    if json:
        print(jsons.dumps(document))
    else:
        print("\n".join(lines_of(document)))
    sys.stdout.flush()


async def _ask(base_url: str, request_id: str, key: str) -> dict[str, Any]:
    url = f"{base_url}/requests/{request_id}"
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers={"Authorization": f"Bearer {key}"}) as response,
        ):
            answer = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Trouble(
            "the coordinator could not be asked",
            why=f"{url}: {error or type(error).__name__}",
            remedy="name it: --base-url http://HOST:8080/v1, or SHRK_BASE_URL",
        ) from error
    if response.status != 200:
        said = answer.get("error", {}).get("message") if isinstance(answer, dict) else None
        raise Trouble(f"the coordinator does not tell ({response.status})", why=said or "", remedy="")
    found: dict[str, Any] = answer
    return found


def lines_of(document: dict[str, Any]) -> list[str]:
    """The document in words, one line for each attempt; of nodes' own words only what can be seen."""
    return ["".join(filter(str.isprintable, line)) for line in _lines_of(document)]


def _lines_of(document: dict[str, Any]) -> list[str]:
    kind = "streamed" if document["streaming"] else "whole"
    tokens = f", {document['tokens']} tokens" if document["tokens"] else ""
    lines = [
        f"{document['id']}: {document['status'].replace('_', ' ')} after {_seconds(document['duration_ms'])}{tokens}",
        f"{document['model']} at {document['endpoint']}, {kind}",
    ]
    if not document["attempts"]:
        return [*lines, "no node was asked"]
    several = document["answers"] > 1
    return lines + [_attempt(attempt, several) for attempt in document["attempts"]]


def _attempt(attempt: dict[str, Any], several: bool) -> str:
    choice = f"answer {attempt['choice']}, " if several else ""
    seam = "" if attempt["seam"] is None else f" at token {attempt['seam']}"
    began = f"{_seconds(attempt['begun_ms'])}: {choice}attempt {attempt['number']} on {attempt['node']}"
    first = attempt["first_piece_ms"]
    spoke = "" if first is None else f", first piece at {_seconds(first)}"
    ended = "" if attempt["ended_ms"] is None else f" at {_seconds(attempt['ended_ms'])}"
    code = f" ({attempt['code']})" if attempt["code"] else ""
    why = f": {attempt['reason']}{code}" if attempt["reason"] else code
    outcome = attempt["outcome"].replace("_", " ")
    return f"  {began}, {_HOW.get(attempt['resume'], attempt['resume'])}{seam}{spoke}; {outcome}{ended}{why}"


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.3f} s"
