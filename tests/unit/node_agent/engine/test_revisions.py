"""The commits that this node has pinned, in their file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shrk_node_agent.engine.revisions import LockUnreadable, Pinned, RevisionLock, snapshot_files


def test_what_was_pinned_is_there_after_a_restart_for_its_own_revision_only(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    assert RevisionLock(path).pinned("org/a", None) is None
    RevisionLock(path).pin("org/a", None, Pinned("c1"))
    RevisionLock(path).pin("org/a", "v2", Pinned("c2", {"config.json": 2}))
    again = RevisionLock(path)
    assert again.pinned("org/a", None) == again.pinned("org/a", "main") == Pinned("c1")
    assert again.pinned("org/a", "v2") == Pinned("c2", {"config.json": 2})
    assert again.pinned("org/b", None) is None
    assert json.loads(path.read_bytes())["schema"] == 1


def test_a_repository_that_is_forgotten_loses_all_its_revisions_and_no_other_loses_any(tmp_path: Path) -> None:
    lock = RevisionLock(tmp_path / "models.lock")
    assert lock.forget("org/a") == {}
    lock.pin("org/a", None, Pinned("c1"))
    lock.pin("org/a", "v2", Pinned("c2"))
    lock.pin("org/a-b", None, Pinned("c3"))
    forgotten = lock.forget("org/a")
    assert lock.pinned("org/a", None) is lock.pinned("org/a", "v2") is None
    assert lock.pinned("org/a-b", None) == Pinned("c3")
    lock.keep(forgotten)
    assert (lock.pinned("org/a", None), lock.pinned("org/a", "v2")) == (Pinned("c1"), Pinned("c2"))


@pytest.mark.parametrize("content", ["", "[]", '{"models": 1}', '{"models": {"a@main": {"commit": 1, "files": {}}}}'])
def test_a_file_that_holds_something_else_is_named_with_what_to_do_and_left_as_it_is(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "models.lock"
    path.write_text(content)
    for act in (lambda: RevisionLock(path).pinned("a", None), lambda: RevisionLock(path).pin("a", None, Pinned("c"))):
        with pytest.raises(LockUnreadable, match=r"models\.lock cannot be read .*; delete it, and"):
            act()
    assert path.read_text() == content


def test_a_model_is_whole_when_each_file_is_there_in_its_size(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    files = snapshot_files(tmp_path)
    assert files == {"model.safetensors": 4, "sub/config.json": 2}
    assert Pinned("c", files).is_whole(tmp_path)
    assert not Pinned("c").is_whole(tmp_path), "nobody has said that all of it is here"
    (tmp_path / "model.safetensors").write_bytes(b"123")
    assert not Pinned("c", files).is_whole(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert not Pinned("c", files).is_whole(tmp_path)
