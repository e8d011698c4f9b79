"""`shrk status` as people read it, from the agent's status document. Pure.

What an older agent does not tell is left out; so is what does not fit, the least important first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shrk_contract.terms import SERVING, State
from shrk_node_agent.commands.phrases import columns, counted, cut, gigabytes, lasting, padded, printable, wrapped

Document = dict[str, Any]
Paint = Callable[[str, str], str]

#: Narrower than this nothing can be read; a terminal that says so is not believed.
WIDTH_MIN = 40

#: Of a line that goes on in the next one.
_INDENT = "    "

_GOOD, _BAD, _WARN, _STRONG, _DIM = "32", "31", "33", "1", "2"
_BROKEN = frozenset({State.QUARANTINED, State.INCOMPATIBLE, State.UNREACHABLE, State.OFFLINE})


def plain(text: str, _style: str) -> str:
    """For pipes, files, and whoever sets NO_COLOR."""
    return text


def coloured(text: str, style: str) -> str:
    """For terminals."""
    return f"\x1b[{style}m{text}\x1b[0m" if text else text


def is_eligible(document: Document) -> bool:
    """Whether the node takes work: online or busy, and linked to its coordinator."""
    return document["state"] in SERVING and document["link"] == "connected"


def status_text(document: Document, width: int | None = None, paint: Paint = plain) -> str:
    """The whole. `width`: columns of the terminal; None: lines are as long as they are."""
    width = None if width is None else max(WIDTH_MIN, width)
    gpus, engines = document.get("gpus", []), document["engines"]
    placed = [_engines_on(gpu, gpus, engines) for gpu in gpus]
    elsewhere = [engine for engine in engines if not any(engine in on for on in placed)]
    lines = _headline(document, width, paint)
    lines += _table([_gpu_row(gpu, on) for gpu, on in zip(gpus, placed, strict=True)], width)
    serving = [engine for engine in elsewhere if engine["state"] in SERVING]
    lines += _table([(_Cell("Model"), _Cell(_name(engine)), _Cell(_load(engine))) for engine in serving], width)
    lines += wrapped(_totals(document), width, _INDENT)
    lines += wrapped(_hours(document), width, _INDENT)
    for engine in engines:
        if engine["state"] not in SERVING:
            lines += wrapped(_not_serving(engine), width, _INDENT)
    health = _health(document, width)
    return "\n".join([*lines, *([paint("# Health", _STRONG), *health] if health else [])])


# --- the headline --------------------------------------------------------------------------------------


def _headline(document: Document, width: int | None, paint: Paint) -> list[str]:
    state, linked = document["state"], document["link"] == "connected"
    style = _GOOD if is_eligible(document) else _BAD if state in _BROKEN or not linked else _WARN
    version = f"shrk {document['version']}" if document.get("version") else "shrk"
    engines = document["engines"]
    serving = sum(engine["state"] in SERVING for engine in engines)
    node = " ".join(word for word in ("node", document["node_id"], f'"{printable(document["name"])}"') if word)
    parts = [f"{state.upper()} · serves {serving} of {len(engines)} model{'s' if len(engines) != 1 else ''}", node]
    if "uptime_seconds" in document:
        parts.append(f"up {lasting(document['uptime_seconds'])}")
    if document.get("coordinator"):
        parts.append(f"coordinator {printable(document['coordinator'])}")
    head, *more = wrapped(f"● {version}  {'   '.join(parts)}", width, _INDENT)
    head = head.replace("●", paint("●", style), 1).replace(state.upper(), paint(state.upper(), f"{_STRONG};{style}"), 1)
    lines = [head, *more]
    reason, action = printable(document["reason"]), printable(document.get("next_action", ""))
    if state != State.ONLINE and (reason or action):
        since = f" (for {lasting(document['since_seconds'])})" if "since_seconds" in document else ""
        lines += wrapped(f"  {reason or state}{since}{f' -> {action}' if action else ''}", width, _INDENT)
    if not linked:
        why = printable(document["link_reason"]) or "it dials"
        lines += wrapped(
            f"  Not linked to the coordinator ({document['link']}): {why} -> shrk netcheck", width, _INDENT
        )
    return lines


# --- GPUs and models -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell of a line. Of a line that is too long the columns with the largest `expendable` go first."""

    text: str
    expendable: int = 0
    right: bool = False


def _gpu_row(gpu: Document, engines: Sequence[Document]) -> tuple[_Cell, ...]:
    celsius, watts, free = gpu["temperature_celsius"], gpu["power_watts"], gpu["memory_free_bytes"]
    memory = gpu["memory_bytes"]
    used = "?" if free is None else gigabytes(memory - free)
    work = " + ".join(f"{_name(engine)} {_load(engine)}" for engine in engines) or "-"
    if gpu["lost"]:
        work = "lost: the driver does not find it any more"
    return (
        _Cell(f"GPU {gpu['index']}"),
        _Cell(printable(gpu["name"]), expendable=3),
        _Cell(f"{'?' if celsius is None else f'{celsius:.0f}'}/{gpu['cap_celsius']:.0f} °C", right=True),
        _Cell("? W" if watts is None else f"{watts:.0f} W", expendable=1, right=True),
        _Cell(f"{used}/{gigabytes(memory)} GB", expendable=2, right=True),
        _Cell("" if gpu["rung"] in ("", "none") else f"[{printable(gpu['rung'])}]"),
        _Cell(work),
    )


def _engines_on(gpu: Document, gpus: Sequence[Document], engines: Sequence[Document]) -> list[Document]:
    """The engines that serve on this GPU: where only one is there, all; else those that are said to be on it."""
    serving = [engine for engine in engines if engine["state"] in SERVING]
    return serving if len(gpus) == 1 else [engine for engine in serving if gpu["index"] in engine.get("gpus", ())]


def _name(engine: Document) -> str:
    return printable(engine["model"])


def _load(engine: Document) -> str:
    running = min(engine["in_flight"], engine["slots"])
    waiting = engine["in_flight"] - running
    return f"{running} of {engine['slots']} running" + (f", {waiting} waiting" if waiting else "")


def _table(rows: Sequence[Sequence[_Cell]], width: int | None) -> list[str]:
    """One line a row, its columns under each other; what is empty in all rows, or does not fit, is left out."""
    if not rows:
        return []
    kept = [place for place in range(len(rows[0])) if any(row[place].text for row in rows)]
    while True:
        widths = {place: max(columns(row[place].text) for row in rows) for place in kept}
        expendable = [place for place in kept if rows[0][place].expendable]
        if width is None or not expendable or sum(widths.values()) + 2 * (len(kept) - 1) <= width:
            break
        kept.remove(max(expendable, key=lambda place: rows[0][place].expendable))
    return [cut(_joined(row, widths), width) for row in rows]


def _joined(row: Sequence[_Cell], widths: Mapping[int, int]) -> str:
    cells = (padded(row[place].text, wide, right=row[place].right) for place, wide in widths.items())
    return "  ".join(cells).rstrip()


def _not_serving(engine: Document) -> str:
    what, action = engine["state"], engine.get("next_action", "")
    if engine["progress"] is not None:
        what += f" {engine['progress'] * 100:.0f} %"
    why = engine["reason"] or engine["detail"]
    for_how_long = f"for {lasting(engine['elapsed_seconds'])}"
    return printable(
        f"Not serving: {_name(engine)}: {what}{f', {why}' if why else ''} ({for_how_long})"
        f"{f' -> {action}' if action else ''}"
    )


# --- below ---------------------------------------------------------------------------------------------


def _totals(document: Document) -> str:
    totals = document.get("totals")
    if not totals:
        return ""
    requests, tokens = totals["requests"], totals["tokens"]
    return f"Since the start  {counted(requests)} request{'s' if requests != 1 else ''} · {counted(tokens)} tokens"


def _hours(document: Document) -> str:
    schedule, paused = document.get("schedule"), document.get("paused")
    words = []
    if schedule:
        text = printable(schedule["text"])
        zone = f" {printable(schedule['zone'])}" if schedule["zone"] and text else ""
        why = f" ({printable(schedule['zone_why'])})" if zone and schedule.get("zone_why") else ""
        words.append(f"Schedule  {text or 'always'}{zone}{why}")
        if schedule["open"] and schedule["closes_in_seconds"] is not None:
            words.append(f"closes in {lasting(schedule['closes_in_seconds'])}")
        elif not schedule["open"]:
            opens = schedule["opens_in_seconds"]
            words.append("closed" if opens is None else f"closed, opens in {lasting(opens)}")
    if paused:
        left = paused["until_seconds"]
        words.append("paused until `shrk resume`" if left is None else f"paused for another {lasting(left)}")
    return ", ".join(words)


def _health(document: Document, width: int | None) -> list[str]:
    bullets = [(item["what"], item["next"]) for item in document.get("health", [])]
    if problem := document.get("settings_error", ""):
        bullets.append((f"The settings could not be taken in, the old ones hold: {problem}", "shrk config check"))
    for gpu in document.get("gpus", []):
        if gpu["throttle"]:
            bullets.append((f"GPU {gpu['index']} is slowed by its driver: {', '.join(gpu['throttle'])}", ""))
    lines = []
    for what, action in bullets:
        lines += wrapped(f"#   - {printable(what)}{f' -> {printable(action)}' if action else ''}", width, "#     ")
    return lines
