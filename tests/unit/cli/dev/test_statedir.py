"""The folder of a network: locked to one, and what it remembers."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shrk_cli.dev import statedir
from shrk_cli.dev.statedir import Memory
from shrk_cli.errors import Exit, Trouble


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own: those paths are longer than sockets allow.
    made, temporary = statedir.create(None)
    assert temporary
    yield made
    shutil.rmtree(made)


def test_a_temporary_folder_is_put_where_sockets_fit(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    deep = folder / ("deep" * 8)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    made, _ = statedir.create(None)
    made.rmdir()
    assert made.parent == Path("/tmp")


def test_a_given_folder_is_made_for_its_owner_alone_and_kept(folder: Path) -> None:
    made, temporary = statedir.create(folder / "a" / "b")
    assert not temporary
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_refused_by_name(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(Trouble, match="--state-dir"):
        statedir.create(folder / "file" / "below")


def test_a_file_is_no_state_folder(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(Trouble, match=r"--state-dir .*file cannot be used") as caught:
        statedir.create(folder / "file")
    assert caught.value.why == "it is a file, not a folder"
    assert caught.value.code == Exit.USAGE


def test_a_folder_with_other_things_in_it_is_refused_and_one_of_a_network_is_taken(folder: Path) -> None:
    (folder / "thesis.txt").touch()
    with pytest.raises(Trouble, match="--state-dir") as caught:
        statedir.create(folder)
    assert "not empty" in caught.value.why
    os.close(statedir.lock(folder))
    assert statedir.create(folder) == (folder, False)


def test_a_second_network_in_the_same_folder_is_refused_with_the_firsts_process_id(folder: Path) -> None:
    held = statedir.lock(folder)
    with pytest.raises(Trouble, match="another shrk dev") as caught:
        statedir.lock(folder)
    assert str(os.getpid()) in caught.value.why
    os.close(held)
    os.close(statedir.lock(folder))


def test_keys_and_ports_come_back_and_are_readable_by_the_owner_only(folder: Path) -> None:
    file = folder / "dev.json"
    assert statedir.recall(file) is None
    memory = Memory("caller", "admin", 9100, 9101)
    statedir.remember(file, memory)
    assert statedir.recall(file) == memory
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["{", "[]", '{"api_key": "x"}'])
def test_a_damaged_memory_is_refused_with_the_way_out(folder: Path, content: str) -> None:
    (folder / "dev.json").write_text(content)
    with pytest.raises(Trouble, match="is damaged") as caught:
        statedir.recall(folder / "dev.json")
    assert "rm " in caught.value.remedy
