"""Removing a model's files: all of its repository, and never anything outside the folder of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from shrk_node_agent.engine.removal import NotRemoved, kept


def a_repository(cache: Path, name: str = "models--org--tiny", size: int = 100_000) -> Path:
    """As the hub's library lays it out: two snapshots of one blob."""
    folder = cache / name
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / "b1").write_bytes(b"w" * size)
    for commit in ("c1", "c2"):
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/b1")
    (cache / ".locks" / name).mkdir(parents=True)
    (cache / ".locks" / name / "b1.lock").touch()
    return folder


def test_all_snapshots_and_blobs_of_the_repository_go_and_other_models_stay(tmp_path: Path) -> None:
    folder, other = a_repository(tmp_path), a_repository(tmp_path, "models--org--tiny-2")
    found = kept(tmp_path, "org/tiny")
    assert found.is_here
    assert 100_000 <= found.size() < 101_000, "a blob counts once, though two snapshots have it"
    found.remove()
    assert not folder.exists()
    assert not (tmp_path / ".locks" / "models--org--tiny").exists()
    assert (other / "snapshots" / "c1" / "model.safetensors").read_bytes() == b"w" * 100_000
    assert not kept(tmp_path, "org/tiny").is_here


def test_nothing_there_is_nothing_to_remove(tmp_path: Path) -> None:
    found = kept(tmp_path, "org/tiny")
    assert (found.is_here, found.size()) == (False, 0)
    found.remove()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../etc", "/etc", "org/..", "../x", "a/b/c", "org/na me", "org/\n", "~", "x\0"]
)
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotRemoved, match=r"is no model of the hub"):
        kept(tmp_path, name)


def test_links_are_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis").write_text("years of work")
    cache = tmp_path / "models"
    folder = a_repository(cache)
    (folder / "snapshots" / "c3").symlink_to(mine)
    kept(cache, "org/tiny").remove()
    assert (mine / "thesis").exists()
    (cache / "models--org--tiny").symlink_to(mine)
    with pytest.raises(NotRemoved, match=r"is a link to .*mine.* left alone"):
        kept(cache, "org/tiny")
    assert (mine / "thesis").exists()


def test_a_folder_of_models_on_another_disk_is_a_folder_like_any_other(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    folder = a_repository(disk)
    (tmp_path / "models").symlink_to(disk)
    kept(tmp_path / "models", "org/tiny").remove()
    assert not folder.exists()
