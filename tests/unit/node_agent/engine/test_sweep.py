"""The sweep at start: what a killed warden left is found by its session, and nobody else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shrk_node_agent.engine.sweep import SessionRecord, Swept, record_path, sweep
from shrk_node_agent.engine.warden import boot_id, read_process
from support.processes import alive, wait_until_gone
from support.wardens import STUBBORN, start_family


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[SessionRecord]:
    """A record that names a session of this test's own, with a living leader."""
    process = subprocess.Popen([sys.executable, *STUBBORN], start_new_session=True, stdout=subprocess.DEVNULL)
    entry = read_process(process.pid)
    assert entry is not None
    folder = tmp_path / "files"
    folder.mkdir()
    yield SessionRecord(process.pid, entry.start, boot_id(), str(folder))
    process.kill()
    process.wait(timeout=30)


def test_what_a_killed_warden_left_in_the_session_is_killed_and_its_files_are_removed(tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "folder"
    run.mkdir()
    folder.mkdir()
    (folder / "engine.sock").touch()
    started, (head, near, away) = start_family()
    with started:
        entry = read_process(head)
        assert entry is not None
        SessionRecord(head, entry.start, boot_id(), str(folder)).write(record_path(run, "org/model"))
        started.process.kill()
        wait_until_gone([head])  # By its death signal, which is not inherited:
        assert alive([near]) == [near]
        assert sweep(run) == (Swept("org/model", (near,)),)
        assert not alive([near])
        assert not folder.exists()
        assert not list(run.iterdir())
        os.kill(away, signal.SIGKILL)  # Left the session: known limit of a sweep, and no limit of the warden's.


def test_a_record_of_an_earlier_boot_kills_nobody(tmp_path: Path, stranger: SessionRecord) -> None:
    replace(stranger, boot_id="an earlier one").write(record_path(tmp_path, "e"))
    assert sweep(tmp_path) == (Swept("e", ()),)
    assert alive([stranger.session])


def test_a_session_number_that_was_given_away_since_kills_nobody(tmp_path: Path, stranger: SessionRecord) -> None:
    replace(stranger, start=stranger.start - 1).write(record_path(tmp_path, "e"))
    assert sweep(tmp_path) == (Swept("e", ()),)
    assert alive([stranger.session])


def test_a_file_that_is_no_record_is_said_and_removed(tmp_path: Path) -> None:
    for content in ("", "[]", '{"session": "1", "start": 0, "boot_id": "", "folder": "/x"}'):
        record_path(tmp_path, "e").write_text(content)
        (swept,) = sweep(tmp_path)
        assert swept.killed == ()
        assert "no record" in swept.problem
        assert not list(tmp_path.iterdir())


def test_a_record_never_names_a_folder_that_is_not_absolute(tmp_path: Path) -> None:
    SessionRecord(1, 1, boot_id(), "").write(record_path(tmp_path, "e"))
    (swept,) = sweep(tmp_path)
    assert "absolute" in swept.problem


def test_no_records_or_no_folder_at_all_is_nothing_to_do(tmp_path: Path) -> None:
    assert sweep(tmp_path) == ()
    assert sweep(tmp_path / "never made") == ()
