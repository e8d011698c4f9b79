"""`shrk doctor`: this machine, then the coordinator's checklist, then a real token that comes back through it.

It passes only if the token came. Exit codes: 0 all is well, 1 something on this machine is not, 3 the agent does not
run, 4 it runs and no work would come, 6 it is another user's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from shrk_node_agent.checklist import Line
    from shrk_node_agent.settings import AgentSettings

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

#: The agent itself waits for the coordinator, and gives up sooner.
WHY_SECONDS_MAX = 15.0
PROBE_SECONDS_MAX = 75.0

#: (method, path, body, seconds) -> the agent's answer.
Ask = Callable[[str, str, dict[str, Any] | None, float], dict[str, Any]]


@dataclass
class Findings:
    """All that was looked at."""

    machine: list[Line] = field(default_factory=list)
    coordinator: list[Line] = field(default_factory=list)
    token: list[Line] = field(default_factory=list)
    exit_code: int = 0
    #: Whether the coordinator would ask this node for work.
    eligible: bool = False
    first_token_ms: int | None = None

    @property
    def lines(self) -> list[Line]:
        """All lines, in the order in which they were looked at."""
        return [*self.machine, *self.coordinator, *self.token]


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Without the token: answers within seconds.")] = False,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Whose token is asked for.  [default: any that is served]")
    ] = "",
    state_dir: Annotated[Path | None, typer.Option("--state-dir", metavar="DIR", help="The agent's folder.")] = None,
) -> None:
    """Whether this node is well: this machine, the coordinator's view, and a real token that comes back."""
    import time

    from shrk_contract.settings import load
    from shrk_node_agent import control_client
    from shrk_node_agent.settings import AgentSettings

    try:
        folder = control_client.running_in(state_dir)
    except control_client.NotAllowed as trouble:
        typer.echo(f"shrk: {trouble}", err=True)
        raise typer.Exit(trouble.exit_code) from trouble

    def ask(method: str, path: str, body: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        return control_client.ask(folder, method, path, body, seconds)

    def unix_ms() -> int:
        return time.time_ns() // 1_000_000

    found = examine(folder, lambda: load(AgentSettings, state_dir=state_dir), ask, unix_ms, model=model, quick=quick)
    print(_document(found) if as_json else text(found))
    raise typer.Exit(found.exit_code)


def examine(
    folder: Path,
    load: Callable[[], AgentSettings],
    ask: Ask,
    unix_ms: Callable[[], int],
    *,
    model: str = "",
    quick: bool = False,
) -> Findings:
    """Look at everything that can be looked at; what depends on something that failed is left out, and said so."""
    from shrk_contract.trouble import Trouble
    from shrk_node_agent import checklist, examination
    from shrk_node_agent.checklist import Line, Mark
    from shrk_node_agent.control_client import NotRunning, Refused

    found = Findings()
    line, settings = examination.settings(load)
    found.machine += [line, examination.folder(folder), examination.disk(folder)]
    found.machine.append(examination.identity(folder, unix_ms()))
    if settings is not None:
        found.machine.append(examination.engine(settings))
    try:
        found.machine += examination.agent(ask("GET", "/status", None, WHY_SECONDS_MAX))
        answer = ask("GET", "/why", None, WHY_SECONDS_MAX)
        found.machine.append(examination.clock(answer["at_unix_ms"], unix_ms()))
        _look_at_verdict(found, answer)
        if quick:
            found.token.append(Line("token", Mark.SKIPPED, "none was asked for (--quick)", "shrk doctor"))
        else:
            _look_at_token(found, ask("POST", "/probe", {"model": model}, PROBE_SECONDS_MAX))
            if found.first_token_ms is not None and not found.eligible:
                # A token makes a node well that was left alone after failures.
                _look_at_verdict(found, ask("GET", "/why", None, WHY_SECONDS_MAX))
    except Refused as trouble:
        found.token.append(Line("token", Mark.FAILED, str(trouble), "Correct the question."))
        found.exit_code = 1
        return found
    except Trouble as trouble:
        found.exit_code = 1
        line = Line("agent", Mark.FAILED, str(trouble), "See its log: shrk logs")
        if isinstance(trouble, NotRunning):
            found.exit_code = 3
            line = Line("agent", Mark.FAILED, f"it does not run: {trouble.why}", "shrk start")
        found.machine.append(line)
        return found
    if not found.eligible or checklist.failed(found.token):
        found.exit_code = 4
    elif checklist.failed(found.lines):
        found.exit_code = 1
    return found


def _look_at_verdict(found: Findings, answer: dict[str, Any]) -> None:
    from shrk_node_agent import checklist
    from shrk_node_agent.checklist import Line, Mark

    found.eligible = answer["eligible"]
    found.coordinator = checklist.of_verdict(answer["checks"])
    if not answer["checks"]:
        found.coordinator.append(Line("verdict", Mark.FAILED, answer["reason"], answer["next_action"]))
    elif not answer["eligible"] and not checklist.failed(found.coordinator):
        found.coordinator.append(Line("eligible", Mark.FAILED, f"it is {answer['state']}", answer["next_action"]))


def _look_at_token(found: Findings, answer: dict[str, Any]) -> None:
    from shrk_node_agent.checklist import Line, Mark

    if answer["passed"]:
        found.first_token_ms = answer["first_token_ms"]
        came = f"{answer['model']} answered through the coordinator, its first token after {found.first_token_ms} ms"
        found.token.append(Line("token", Mark.PASSED, came))
    else:
        asked = f"{answer['model']}: " if answer["model"] else ""
        found.token.append(Line("token", Mark.FAILED, f"{asked}{answer['reason']}", answer["next_action"]))


def text(found: Findings) -> str:
    """What people read."""
    from shrk_node_agent import checklist
    from shrk_node_agent.checklist import Mark

    parts = [f"This machine\n{checklist.text(found.machine)}"]
    if found.coordinator:
        parts.append(f"The coordinator's view\n{checklist.text(found.coordinator)}")
    if found.token:
        parts.append(f"A real token, asked of this node through the coordinator\n{checklist.text(found.token)}")
    count = sum(line.mark is Mark.FAILED for line in found.lines)
    if count:
        end = f"{count} of {len(found.lines)} checks failed: see → for what to do."
    elif found.first_token_ms is None:
        end = "Nothing failed, and no token was asked for: shrk doctor does that."
    else:
        end = "This node is well: a real token came back."
    return "\n\n".join([*parts, end])


def _document(found: Findings) -> str:
    from shrk_node_agent import checklist

    return checklist.document(
        found.lines, passed=found.exit_code == 0, exit_code=found.exit_code, first_token_ms=found.first_token_ms
    )
