"""What people see while engines load."""

from __future__ import annotations

import errno
import io
from dataclasses import replace

import pytest
from rich.console import Console

from shrk_cli.dev.progress import Lines, LiveTable, Surviving, make
from shrk_cli.dev.status import EngineStatus, NodeStatus

LOADING = EngineStatus("e", "shark-tiny", "loading", detail="loading weights", progress=0.4, elapsed_seconds=12.3)
ONLINE = replace(LOADING, state="online", detail="", progress=1.0, elapsed_seconds=30.0)


def node(engine: EngineStatus) -> NodeStatus:
    return NodeStatus("dev-1", engine.state, engines=(engine,))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_name_node_model_state_detail_percentage_and_time() -> None:
    stream = io.StringIO()
    Lines(stream).node(node(LOADING))
    assert stream.getvalue() == "dev-1  shark-tiny  loading  loading weights  40%  12 s\n"


def test_plain_lines_come_on_change_only_and_at_most_every_two_seconds_per_engine() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    for step in range(5):
        lines.node(node(replace(LOADING, progress=0.1 * step)))
    clock.now += 2
    lines.node(node(LOADING))
    clock.now += 2
    lines.node(node(replace(LOADING, elapsed_seconds=16)))
    assert stream.getvalue().count("\n") == 2


def test_a_change_of_state_is_shown_at_once() -> None:
    stream = io.StringIO()
    lines = Lines(stream, Clock())
    lines.node(node(LOADING))
    lines.node(node(ONLINE))
    assert stream.getvalue().splitlines()[-1] == "dev-1  shark-tiny  online  30 s"


def test_once_settled_online_and_busy_may_alternate_in_silence() -> None:
    stream = io.StringIO()
    lines = Lines(stream, Clock())
    lines.node(node(ONLINE))
    lines.settle()
    lines.node(node(replace(ONLINE, state="busy")))
    lines.node(node(ONLINE))
    assert stream.getvalue().count("\n") == 1
    lines.node(node(LOADING))
    assert stream.getvalue().count("\n") == 2


def test_a_terminal_gets_a_table_and_anything_else_plain_lines() -> None:
    shown = make(io.StringIO())
    assert isinstance(shown, Surviving)
    assert isinstance(shown.shown, Lines)


class Gone(io.StringIO):
    """What is left of a closed terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_that_went_away_is_survived_and_not_written_to_again(terminal: bool) -> None:
    gone = Gone()
    progress = Surviving(LiveTable(Console(file=gone, force_terminal=True)) if terminal else Lines(gone))
    progress.say("stopping")
    tries = gone.tries
    assert tries > 0
    progress.node(node(LOADING))
    progress.tick()
    progress.settle()
    progress.say("stopping at once")
    assert gone.tries == tries


def test_what_took_no_time_says_no_time() -> None:
    stream = io.StringIO()
    Lines(stream).node(node(replace(ONLINE, elapsed_seconds=0.2)))
    assert stream.getvalue() == "dev-1  shark-tiny  online\n"


def test_the_table_is_redrawn_in_place_and_gives_way_to_lines() -> None:
    stream = io.StringIO()
    table = LiveTable(Console(file=stream, force_terminal=True, width=100), Clock())
    table.say("starting")
    table.node(node(LOADING))
    table.tick()
    assert "loading weights" in stream.getvalue()
    assert "40%" in stream.getvalue()
    table.settle()
    drawn = len(stream.getvalue())
    table.node(node(LOADING))
    assert len(stream.getvalue()) == drawn
    table.node(node(ONLINE))
    assert stream.getvalue()[drawn:] == "dev-1  shark-tiny  online  30 s\n"
