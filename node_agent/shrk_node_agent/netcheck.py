"""`shrk netcheck`: the way from this machine to its coordinator, step by step, and the direction that fails.

Exit codes: 0 the way is open, 1 it is not.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from shrk_node_agent.checklist import Line
    from shrk_node_agent.link.identity import Identity

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

#: The agent itself waits for the coordinator, and gives up sooner.
WHY_SECONDS_MAX = 15.0

#: (method, path, seconds) -> the agent's answer. Raises Trouble.
Ask = Callable[[str, str, float], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Way:
    """From where to where."""

    #: tcp://host:port of the coordinator's link port; empty: nobody has named it.
    controller: str
    identity: Identity | None
    identity_folder: Path
    #: Empty: there is none.
    join_token: str = ""


@app.command()
def netcheck(
    controller: Annotated[
        str | None,
        typer.Option("--controller", metavar="tcp://HOST:PORT", help="The coordinator.  [env: SHRK_CONTROLLER]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    state_dir: Annotated[Path | None, typer.Option("--state-dir", metavar="DIR", help="The agent's folder.")] = None,
) -> None:
    """The way to the coordinator, step by step, and which direction fails."""
    import asyncio
    import time

    from shrk_contract.trouble import Trouble
    from shrk_node_agent import checklist, control_client

    def ask(method: str, path: str, seconds: float) -> dict[str, Any]:
        return control_client.ask(folder, method, path, timeout=seconds)

    try:
        folder = control_client.running_in(state_dir)
        way = _way(controller, folder)
        lines = asyncio.run(check(way, ask, time.monotonic))
    except Trouble as trouble:
        print(f"shrk: {trouble}", file=sys.stderr)
        raise typer.Exit(trouble.exit_code) from trouble
    fails = checklist.failed(lines)
    print(checklist.document(lines, passed=not fails) if as_json else text(lines))
    raise typer.Exit(1 if fails else 0)


def _way(controller: str | None, folder: Path) -> Way:
    """Raises Trouble where the identity is damaged, or only a file names the coordinator that may not be read."""
    from shrk_contract.trouble import Trouble
    from shrk_node_agent.control_client import NotAllowed, setting
    from shrk_node_agent.link import identity as identities

    identity_folder = folder / "identity"
    try:
        identity = identities.load(identity_folder)
    except identities.IdentityError as error:
        raise Trouble(str(error)) from error
    try:
        written, join_token = setting("controller"), setting("join_token")
    except NotAllowed:
        if not (controller or identity):
            raise
        written = join_token = ""  # another node's settings: this one is known without them
    named = controller or written or (identity.link_addresses[0] if identity else "")
    return Way(named, identity, identity_folder, join_token)


async def check(way: Way, ask: Ask, clock: Callable[[], float]) -> list[Line]:
    """Every step up to the first that fails; what the rest would show follows from it. `clock`: monotonic seconds."""
    from shrk_node_agent.checklist import Line, Mark
    from shrk_node_agent.link import reach
    from shrk_node_agent.link.join_token import ControllerInvalid, parse_controller

    if not way.controller:
        why = "nobody has named the coordinator"
        return [Line("controller", Mark.FAILED, why, "SHRK_CONTROLLER=tcp://HOST:9100, or `controller` in the file.")]
    try:
        to = parse_controller(way.controller)
    except ControllerInvalid as error:
        return [Line("controller", Mark.FAILED, str(error))]
    steps: list[Callable[[], Awaitable[Line]]] = [
        lambda: reach.name(to),
        lambda: reach.tcp(to, to.port, "tcp", clock),
    ]
    if (identity := way.identity) is not None:
        steps.append(lambda: reach.tls(to, identity, way.identity_folder))
        steps.append(lambda: reach.http2(to, identity))
    lines: list[Line] = []
    for step in steps:
        lines.append(await step())
        if lines[-1].mark is Mark.FAILED:
            break
    lines.append(await _enrolment(way))
    return [*lines, *_seen_from_there(ask, clock)]


async def _enrolment(way: Way) -> Line:
    from shrk_node_agent.checklist import Line, Mark
    from shrk_node_agent.link import reach
    from shrk_node_agent.link.join_token import parse_controller

    if way.join_token:
        return await reach.enrolment(parse_controller(way.controller), way.join_token)
    if way.identity is not None:
        return Line("enrolment", Mark.SKIPPED, "it is not needed: this machine is a node already")
    why = "there is neither an identity nor a join token: whose CA to expect is not known"
    return Line("enrolment", Mark.FAILED, why, "Get a join token: shrk coordinator tokens create --owner YOU")


def _seen_from_there(ask: Ask, clock: Callable[[], float]) -> list[Line]:
    """What the agent and the coordinator know of the link that is open now."""
    from shrk_contract.trouble import Trouble
    from shrk_node_agent.checklist import Line, Mark
    from shrk_node_agent.control_client import NotRunning

    inward = Line(
        "from_there", Mark.SKIPPED, "the coordinator opens no connection to this machine: nodes only dial out"
    )
    try:
        status = ask("GET", "/status", WHY_SECONDS_MAX)
        if status["link"] != "connected":
            why = f"the agent's link is {status['link']}: {status['link_reason'] or 'it dials'}"
            return [Line("link", Mark.FAILED, why, "Mend what failed above; the agent dials again by itself."), inward]
        began = clock()
        answer = ask("GET", "/why", WHY_SECONDS_MAX)
    except Trouble as trouble:
        why = f"the agent does not run: {trouble.why}" if isinstance(trouble, NotRunning) else str(trouble)
        return [Line("link", Mark.SKIPPED, why), inward]
    if answer["problem"]:
        return [Line("link", Mark.FAILED, answer["reason"], answer["next_action"]), inward]
    took = f"it is open; the coordinator answers over it within {(clock() - began) * 1000:.0f} ms"
    where = answer["address"] or "an address that it cannot tell"
    seen = Line("from_there", Mark.PASSED, f"the coordinator sees this node come from {where}: nodes only dial out")
    return [Line("link", Mark.PASSED, took), seen]


def text(lines: list[Line]) -> str:
    """What people read."""
    from shrk_node_agent import checklist
    from shrk_node_agent.checklist import Mark

    first = next((line for line in lines if line.mark is Mark.FAILED), None)
    if first is None:
        return f"{checklist.text(lines)}\n\nThe way to the coordinator is open."
    end = f"What fails: {checklist.printable(first.reason)}."
    return f"{checklist.text(lines)}\n\n{end}\n  → {checklist.printable(first.next_action)}"
