"""`shrk why`: the coordinator's own checklist for this node, line by line.

Exit codes: 0 it is asked for work, 1 it cannot be told, 3 no agent runs, 4 it runs and is not asked, 6 it is
another user's, 7 time-out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

#: The agent itself waits for the coordinator, and gives up sooner.
ANSWER_SECONDS_MAX = 15.0


@app.command()
def why(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    state_dir: Annotated[Path | None, typer.Option("--state-dir", metavar="DIR", help="The agent's folder.")] = None,
) -> None:
    """Why this node gets work, or does not, as its coordinator sees it."""
    from shrk_contract.trouble import Trouble
    from shrk_node_agent.control_client import ask, running_in

    try:
        folder = running_in(state_dir)
        answer = ask(folder, "GET", "/why", timeout=ANSWER_SECONDS_MAX)
        node = ask(folder, "GET", "/status")
    except Trouble as trouble:
        _complain(trouble, as_json=as_json)
        raise typer.Exit(trouble.exit_code) from trouble
    print(_document(answer, node) if as_json else text(answer, node))
    raise typer.Exit(exit_code(answer))


def exit_code(answer: dict[str, Any]) -> int:
    """What `shrk why` ends with, of an answer to `GET /why`."""
    if answer["eligible"]:
        return 0
    return {"old_coordinator": 1, "too_many": 1, "no_answer": 7}.get(answer["problem"], 4)


def text(answer: dict[str, Any], node: dict[str, Any]) -> str:
    """What people read."""
    from shrk_node_agent import checklist

    name = node["node_id"] or node["name"]
    reason, action = checklist.printable(answer["reason"]), checklist.printable(answer["next_action"])
    if not answer["checks"]:
        return f"{name}: {reason}.\n  → {action}"
    if answer["problem"]:
        head = f"{name} gets no work: {reason}"
    elif answer["eligible"]:
        head = f"{name} is {answer['state']}: it is asked whenever somebody wants one of its models"
    else:
        because = f": {reason}" if reason else ""
        head = f"{name} is {answer['state']} and gets no work{because}"
    return f"{head}\n\n{checklist.text(checklist.of_verdict(answer['checks']))}"


def _document(answer: dict[str, Any], node: dict[str, Any]) -> str:
    import json

    return json.dumps({**answer, "node_id": node["node_id"], "name": node["name"]}, ensure_ascii=False)


def _complain(trouble: Exception, *, as_json: bool) -> None:
    import json

    if as_json:
        print(json.dumps({"schema": 1, "eligible": False, "error": str(trouble)}, ensure_ascii=False))
    else:
        print(f"shrk: {trouble}", file=sys.stderr)
