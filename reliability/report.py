"""The page RELIABILITY.md, written from results and from nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reliability.figures import bound
from reliability.results import Outcome, Row

#: In the order of the page: what each experiment is, in the words of its heading.
TITLES: Mapping[str, str] = {
    "matrix": "Every token position, every fault, every shape",
    "load": "Under load",
    "cancel": "Callers that leave",
    "failing": "Nodes that answer errors",
    "slow": "A node that is slow",
    "overload": "More callers than there is room for",
    "poison": "Requests that crash engines",
    "vllm": "Real vLLM",
    "simulation": "The whole cluster, simulated",
    "replicas": "Three replicas of each model, simulated",
    "storm": "Two thousand agents at once",
    "placing": "What a request costs among many nodes",
}

_HEAD = """\
# Reliability

What we promise, how it is tried, and what was counted. `make reliability` writes this page from
`reliability/results.json`, which the same runs wrote; nothing in it is typed by hand.

*Rarer than* is what "0 of n" proves: with 95 % confidence failures are rarer than 3/n. It stands only where none was
seen. A *gap* is the pause in a caller's stream that a fault cost, without the prompt being read again, which takes as
long as the prompt is long: half of all gaps are below the first figure, 99 % below the second. All of it ran on one
machine, callers, coordinator and nodes together, and what was killed started again beside it.
"""

#: Whoever wants to see more finds them in the results.
FAILURES_SHOWN_MAX = 20
#: A bound above a tenth says only that little was tried.
SHARE_SHOWN_MAX = 0.1

_COLUMNS = ("promise", "n", "failures", "rarer than", "gap, 50 % / 99 %")

_NOT_COVERED = """\
## What is not covered

* **The coordinator.** It is one process and holds the callers' connections: when it dies, so do they.
* **GPUs.** vLLM runs on the CPU here, one build, a tiny model in 32-bit floats. Whether a text goes on word for word
  on another kind of GPU is not measured; that nothing delivered is lost, repeated or altered does not depend on it.
* **All nodes of a model at once.** One node is lost at a time, and at least one equal one serves. Where none is left,
  a request waits some seconds for one, and then ends in an error event without `[DONE]`.
* **Distance.** Everything is on one machine: what far networks add to a gap, or hide, is not in these figures.
* **Long prompts.** A node that takes over reads the prompt again; here prompts are short.
* **What the simulation plays.** Its nodes tell tokens by a dialect of their own; how the agents continue a chat, by ids
  or by replay, is tried by the matrix and on real vLLM. It has no answers with several choices, and its coordinator
  never stops.
* **Real engines that answer errors, are slow or overloaded.** Those are simulated ones, which go wrong when they are
  told to: at once, at every request, evenly. What vLLM does when its memory runs out, or how a GPU slows down in the
  heat, is not measured, nor a node that fails only now and then.
* **Large overloads.** Few slots make a small capacity, so that one process can ask ten times as much: of many models,
  keys or coordinators at their own limits these figures say nothing.
* **Queries of death in other words.** A request is known by its exact bytes; each variant costs engines of its own.
* **Other dialects and options.** The faults strike chats: text, tool calls, structured output, not streamed.
  Several choices, log-probabilities, stop strings and penalties are tried by unit tests, not here.
* **A fault before the first token** costs the time in which it is noticed, not a gap; the matrix tells the longest.
* **A repeated piece of an answer that is not streamed** does not exist: those 65 runs show that nothing else breaks.
"""


def page(outcomes: Mapping[str, Outcome]) -> str:
    """The whole page."""
    parts = [_HEAD]
    for name, title in TITLES.items():
        outcome = outcomes.get(name)
        section = "\n".join(_section(outcome)).rstrip() if outcome else "Not measured yet."
        parts.append(f"## {title}\n\n{section}\n")
    return "\n".join([*parts, _NOT_COVERED])


def _section(outcome: Outcome) -> Iterator[str]:
    origin = outcome.origin
    yield (
        f"Measured at commit `{origin.commit}` of {origin.date} with seed {outcome.seed}: "
        f"{outcome.n:,} tries, {outcome.failures} failures, {_duration(outcome.seconds)} on {origin.cores} cores."
    )
    yield ""
    yield f"| {' | '.join(_COLUMNS)} |"
    yield "|---|--:|--:|--:|--:|"
    for row in outcome.rows:
        yield f"| {' | '.join(_cells(row))} |"
    yield ""
    for tried, rows in _by_way(outcome.rows).items():
        yield f"Tried: {tried}."
        if any(row.seen for row in rows):
            yield ""
        for row in rows:
            if row.seen:
                yield f"* {row.promise}: {row.seen}."
        yield ""
    for failure in outcome.failed[:FAILURES_SHOWN_MAX]:
        yield f"* **Failed:** {failure.replace(chr(10), ' ')}"


def _by_way(rows: tuple[Row, ...]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.tried, []).append(row)
    return found


def _cells(row: Row) -> tuple[str, ...]:
    share = bound(row.n, row.failures)
    gaps = row.gaps
    return (
        row.promise,
        f"{row.n:,}",
        f"{row.failures}",
        f"{100 * share:.2g} %" if share is not None and share <= SHARE_SHOWN_MAX else "",
        "" if gaps is None else f"{gaps.p50_ms:,.0f} / {gaps.p99_ms:,.0f} ms (n = {gaps.n:,})",
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def summary(outcome: Outcome) -> str:
    """A few lines for a terminal."""
    lines = [f"{outcome.experiment}: {outcome.n:,} tries, {outcome.failures} failures, {_duration(outcome.seconds)}"]
    for row in outcome.rows:
        promise, n, failures, share, gaps = _cells(row)
        told = [f"{failures} of {n} failed", f"rarer than {share}" if share else "", f"gap {gaps}" if gaps else ""]
        lines.append(f"  {promise}: {', '.join(filter(None, told))}{f'; {row.seen}' if row.seen else ''}")
    return "\n".join([*lines, *(f"  FAILED {failure}" for failure in outcome.failed)])
