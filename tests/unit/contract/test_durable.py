"""Files that are whole or not there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from shrk_contract import durable


def test_a_file_is_replaced_whole_with_its_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    for content in (b"a long first content", b"second"):
        durable.replace(path, content, 0o600)
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_left_beside_a_file_does_not_reach_it(tmp_path: Path) -> None:
    (tmp_path / "node.key.making").write_bytes(b"half of a much longer content")
    durable.replace(tmp_path / "node.key", b"whole", 0o600)
    assert (tmp_path / "node.key").read_bytes() == b"whole"


def test_a_new_file_replaces_none_that_is_there(tmp_path: Path) -> None:
    durable.write_new(tmp_path / "ca.key", b"first", 0o600)
    with pytest.raises(FileExistsError):
        durable.write_new(tmp_path / "ca.key", b"second", 0o600)
    assert (tmp_path / "ca.key").read_bytes() == b"first"


def test_a_file_that_is_replaced_can_keep_its_mode_and_the_links_to_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    durable.replace_kept(path, b"new", 0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "config.toml.making").write_bytes(b"left by a crash")
    durable.replace_kept(tmp_path / "link", b"newer", 0o644)
    assert (tmp_path / "link").is_symlink()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"newer", 0o640)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.toml", "link"]
