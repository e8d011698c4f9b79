"""`shrk coordinator nodes`: asks a running coordinator for its nodes, and shows them as a table or as JSON.

Only the running process knows who is connected, so it is asked as any caller asks it: over HTTP, with a key.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import aiohttp
import orjson

from shrk_contract.trouble import Trouble
from shrk_coordinator.state.phrases import lasting, named
from shrk_coordinator.text_table import printable, table

#: The coordinator answers from memory.
ANSWER_SECONDS_MAX = 10.0
#: Nodes report every five seconds; more often there is little to see.
WATCH_SECONDS = 2.0
#: Pages of a list: as many nodes as one coordinator takes, and some.
PAGES_MAX = 100
#: What the coordinator gives in one page at most.
PAGE_NODES = 500
#: Models that a line of the table names.
MODELS_SHOWN = 3
#: States in which nothing is to be done.
_WELL = ("online", "busy")
#: What a line of the table says of a model at which requests fail.
_FAILING = "failing"
_HEAD = ("NODE", "NAME", "OWNER", "STATE", "FOR", "MODELS", "WORK", "TEMP", "HEARD")
_CALLERS_HEAD = ("NODE", "STATE", "FOR", "MODELS")
#: What takes a terminal's cursor home and wipes the rest.
_CLEAR = "\x1b[H\x1b[2J"

Json = dict[str, Any]


class NotAsked(Trouble):
    """The command itself is wrong."""

    exit_code: ClassVar[int] = 2


class NotReached(Trouble):
    """The coordinator does not answer now: the next time it may."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the coordinator told."""

    nodes: list[Json]
    models: list[Json]
    #: Nodes that are not wanted, counted where none is wanted.
    others: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What is asked for, and how it is shown."""

    base_url: str
    key: str
    #: `model` and `state`, where only some nodes are wanted.
    wanted: Mapping[str, str]
    watch: bool = False
    as_json: bool = False


def show(look: Look, clock: Callable[[], float]) -> None:
    """Ask, and print. `clock` tells unix seconds. Raises Trouble."""
    _check(look)

    async def fetch() -> Seen:
        return await ask(look.base_url.rstrip("/"), look.key, look.wanted)

    def out(seen: Seen) -> None:
        if look.as_json:
            print(orjson.dumps({"schema": 1, "nodes": seen.nodes, "models": seen.models}).decode(), flush=True)
            return
        # In place on a terminal, one after another in a file.
        print(_CLEAR if look.watch and sys.stdout.isatty() else "", end="")
        print(text(seen, clock(), look.wanted), end="\n\n" if look.watch else "\n", flush=True)

    async def run() -> None:
        if look.watch:
            await follow(fetch, out, lambda words: print(f"shrk: {words}", file=sys.stderr))
        else:
            out(await fetch())

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        if not look.watch:
            raise


def _check(look: Look) -> None:
    """Whether it is clear whom to ask, and with what. Raises Trouble."""
    if not look.base_url.startswith(("http://", "https://")):
        raise NotAsked(
            f"{look.base_url[:80]!r} is no address of a coordinator. Name it with its scheme: --base-url "
            "http://127.0.0.1:8080/v1"
        )
    if not look.key:
        raise NotAsked(
            "there is no key to ask with: SHRK_API_KEY is not set. Use the admin key that `shrk coordinator init` "
            "printed, or make one: shrk coordinator keys create --admin --name me"
        )


async def ask(base_url: str, key: str, wanted: Mapping[str, str], page_nodes: int = PAGE_NODES) -> Seen:
    """All nodes that the key may see, and their models. `wanted`: `model` and `state`, where only some are.

    Raises Trouble.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        url, limit = f"{base_url}/nodes", {"limit": str(page_nodes)}
        nodes = [node async for node in _pages(session, url, {**wanted, **limit})]
        models = [
            model
            for model in (await _get(session, f"{base_url}/models", {}))["data"]
            if wanted.get("model") in (None, model["id"])
        ]
        others = 0 if nodes or not wanted else len([node async for node in _pages(session, url, limit)])
        return Seen(nodes, models, others)


async def _pages(session: aiohttp.ClientSession, url: str, query: dict[str, str]) -> AsyncIterator[Json]:
    for _ in range(PAGES_MAX):
        page = await _get(session, url, query)
        for node in page["data"]:
            yield node
        if not page["has_more"]:
            return
        query["after"] = page["last_id"]


async def _get(session: aiohttp.ClientSession, url: str, query: Mapping[str, str]) -> Json:
    try:
        async with session.get(url, params=query) as response:
            answer = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise NotReached(
            f"the coordinator could not be asked: {url}: {error or type(error).__name__}. Start it, or say where "
            "callers reach it: --base-url http://HOST:8080/v1, or SHRK_BASE_URL"
        ) from error
    if response.status == 200 and isinstance(answer, dict) and "data" in answer:
        return answer
    said = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(said, dict):
        raise Trouble(f"{url} answers with {response.status} and no list of nodes: it is no coordinator, or an old one")
    failed = Trouble if response.status < 500 else NotReached
    raise failed(f"the coordinator does not tell ({response.status}): {printable(str(said.get('message')))}")


async def follow(
    fetch: Callable[[], Awaitable[Seen]],
    out: Callable[[Seen], None],
    say: Callable[[str], None],
    seconds: float = WATCH_SECONDS,
) -> None:
    """Show the nodes every so many seconds, over restarts of the coordinator; until cancelled."""
    while True:
        try:
            out(await fetch())
        except NotReached as trouble:
            say(f"{trouble}\nTrying again.")
        await asyncio.sleep(seconds)


def text(seen: Seen, now: float, wanted: Mapping[str, str]) -> str:
    """What people read. `now`: unix seconds."""
    nodes = seen.nodes
    if not nodes and seen.others:
        which = f" that has {printable(wanted['model'])}" if "model" in wanted else ""
        others = f"{seen.others} other{'s' if seen.others > 1 else ''}"
        return f"No node{which} is {printable(wanted.get('state', 'connected'))} now ({others})."
    if not nodes:
        those = " and ".join(f"{name} {printable(value)}" for name, value in wanted.items())
        return (
            f"No node was connected since the coordinator started{f' with {those}' if those else ''}.\n"
            "Those that enrolled: shrk coordinator nodes list. Invite one: shrk coordinator tokens create --owner NAME"
        )
    states = Counter(node["state"] for node in nodes)
    total = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}"
    lines = [f"{total}: {', '.join(f'{count} {state}' for state, count in states.most_common())}", ""]
    if "node_id" not in nodes[0]:
        lines.append(table(_CALLERS_HEAD, [(n["id"], n["state"], _ago(now, n["since"]), _models(n)) for n in nodes]))
        return "\n".join([*lines, "", "An admin key in SHRK_API_KEY shows their names, and why they are as they are."])
    lines.append(table(_HEAD, [_row(node, now) for node in nodes]))
    remarks = _remarks([node for node in nodes if node["reason"]])
    short = [_short(model) for model in seen.models if model["shrk"]["redundancy"] != "ok"]
    return "\n".join([*lines, *(["", *remarks] if remarks else []), *(["", *short] if short else [])])


def _short(model: Json) -> str:
    """A model that does not stand the loss of two nodes, or that nobody serves."""
    about = model["shrk"]
    name, why, state = printable(model["id"]), printable(about["redundancy_reason"]), about["redundancy"]
    if state == "idle":
        return f"{name}: {why}"
    what = f"redundancy is {state}"
    if state == "none":
        what = "nobody can answer now"
    return f"{name}: {what}, {about['effective_n']} of {about['wanted_n']} replicas that fail apart: {why}"


def _row(node: Json, now: float) -> tuple[str, ...]:
    slots = sum(engine["slots"] for engine in node["engines"] if engine["state"] in _WELL)
    work = f"{node['in_flight']}/{slots}" if slots else str(node["in_flight"] or "-")
    told = [device["temperature_celsius"] for device in node["devices"]]
    temperatures = [celsius for celsius in told if celsius is not None]
    return (
        node["id"],
        node["name"] or "-",
        node["owner"],
        node["state"],
        _ago(now, node["since"]),
        _models(node),
        work,
        f"{max(temperatures):.0f} °C" if temperatures else "-",
        f"{_ago(now, node['heard_at'])} ago",
    )


def _models(node: Json) -> str:
    words = [
        model["id"]
        if model["state"] in _WELL or model["state"] == node["state"]
        else f"{model['id']} ({_FAILING if model['state'] == 'quarantined' else model['state']})"
        for model in node["models"][:MODELS_SHOWN]
    ]
    more = len(node["models"]) - len(words)
    return ", ".join(words) + (f" +{more}" if more else "") or "-"


def _remarks(nodes: list[Json]) -> list[str]:
    """What is the matter, and what to do; what holds for several nodes is said once."""
    alike: dict[str, list[str]] = {}
    for node in nodes:
        name = f"{node['id']} ({node['name']})" if node["name"] else node["id"]
        alike.setdefault(f"{node['reason']}. {node['next_action']}".rstrip(), []).append(name)
    return [printable(f"{named(names)}: {remark}") for remark, names in alike.items()]


def _ago(now: float, then: float) -> str:
    return lasting(now - then)
