"""How far a download is, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest

from shrk_node_agent.commands.progress_line import PlainLines, UpdatingLine, make


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_for_each_step_and_each_tenth() -> None:
    log = io.StringIO()
    lines = PlainLines(log)
    lines.step("m", "looking at the model's files", None)
    for percent in range(0, 101, 2):
        lines.step("m", f"downloading: {percent} of 100 GB", percent / 100)
    told = log.getvalue().splitlines()
    assert told[0] == "m: looking at the model's files"
    assert told[1] == "m: downloading: 0 of 100 GB (0 %)"
    assert told[-1] == "m: downloading: 100 of 100 GB (100 %)"
    assert len(told) == 12


def test_a_terminal_has_one_line_that_changes_and_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    now = [0.0]
    screen = Screen()
    line = UpdatingLine(screen, lambda: now[0])
    line.step("m", "downloading: 1 of 10 GB", 0.1)
    now[0] = 10.0
    line.step("m", "downloading: 2 of 10 GB", 0.2)
    line.step("a-model-with-a-very-long-name-indeed", "downloading: 2 of 10 GB", 0.2)
    line.over()
    assert screen.getvalue().split("\r")[1:] == [
        "m: downloading: 1 of 10 GB (10 %)\x1b[K",
        "m: downloading: 2 of 10 GB (20 %), 1 min left\x1b[K",
        "a-model-with-a-very-long-name-indeed: downloading: 2 of 10…\x1b[K",
        "\x1b[K",
    ]


def test_a_name_cannot_move_the_cursor() -> None:
    log = io.StringIO()
    PlainLines(log).step("m\x1b[2J", "waiting", None)
    assert "\x1b" not in log.getvalue()


def test_the_kind_follows_from_the_stream() -> None:
    assert isinstance(make(Screen(), lambda: 0.0), UpdatingLine)
    assert isinstance(make(io.StringIO(), lambda: 0.0), PlainLines)
