"""Logs, and what is added to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shrk_node_agent.commands.tailing import follow, last_lines


def script(*steps: Callable[[], object]) -> Callable[[], None]:
    """What happens each time that there is nothing to read; a test that reads on beyond it fails."""
    left = iter(steps)

    def breathe() -> None:
        next(left)()

    return breathe


def taken(lines: Iterator[str], count: int) -> list[str]:
    return [next(lines) for _ in range(count)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "agent.log"
    path.write_text("one\ntwo\nthree\n")
    return path


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_the_last_lines_are_the_last_lines(log: Path) -> None:
    assert last_lines(log, 2) == ["two", "three"]
    assert last_lines(log, 0) == []
    assert last_lines(log, 9) == ["one", "two", "three"]


def test_what_is_added_follows_line_by_line(log: Path) -> None:
    lines = follow(log, 1, script(lambda: append(log, "fo"), lambda: append(log, "ur\nfive\n")))
    assert taken(lines, 3) == ["three", "four", "five"]


def test_a_log_is_followed_through_its_rotation(log: Path) -> None:
    def rotate() -> None:
        append(log, "last of the old")
        log.rename(log.with_name("agent.log.1"))

    lines = follow(log, 1, script(rotate, lambda: log.write_text("first of the new\n")))
    assert taken(lines, 3) == ["three", "last of the old", "first of the new"]


def test_a_log_that_is_emptied_in_place_is_read_from_its_start(log: Path) -> None:
    lines = follow(log, 1, script(lambda: log.write_text("new\n")))
    assert taken(lines, 2) == ["three", "new"]


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    assert taken(follow(log, 5, script(lambda: log.write_text("one\n"))), 1) == ["one"]


def test_without_last_lines_only_what_is_added_is_told(log: Path) -> None:
    assert taken(follow(log, 0, script(lambda: append(log, "four\n"))), 1) == ["four"]
