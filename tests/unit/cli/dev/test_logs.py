"""Logs: their last lines, and their bound."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from shrk_cli.dev import logs


def test_the_tail_is_the_last_lines_and_empty_without_a_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert logs.tail(log) == []
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    assert logs.tail(log, 2) == ["line 98", "line 99"]


def test_a_log_is_kept_beyond_its_folder_under_a_name_that_tells_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "a.log"
    log.write_text("why it failed\n")
    kept = tmp_path / "kept"
    monkeypatch.setattr(tempfile, "tempdir", str(kept))
    assert "could not be kept" in logs.keep(log, "dev-1")
    kept.mkdir()
    copy = Path(logs.keep(log, "dev-1"))
    assert copy.parent == kept
    assert copy.name.startswith("shrk-dev-dev-1-")
    assert copy.read_text() == "why it failed\n"


def test_a_log_above_its_bound_is_emptied_in_place_and_its_content_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", 10)
    log = tmp_path / "a.log"
    with log.open("a") as writer:
        for text in ("first of many\n", "second of many\n"):
            writer.write(text)
            writer.flush()
            logs.bound(tmp_path)
            assert log.read_text() == ""
            assert (tmp_path / "a.log.1").read_text() == text
        writer.write("short\n")
        writer.flush()
        logs.bound(tmp_path)
    assert log.read_text() == "short\n"
