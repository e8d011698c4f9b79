"""The models that an owner names, and who one is in the folder of their files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shrk_contract.settings import SettingsError
from shrk_node_agent.commands.catalogued import act_as_owner, catalogue_of, read_settings, unknown

_ACTS = """
import os, sys
from pathlib import Path
from shrk_node_agent.commands.catalogued import act_as_owner
act_as_owner(Path(sys.argv[1]))
print(os.getuid(), os.geteuid(), os.getgid(), os.environ["HOME"])
"""
#: `nobody` of most systems.
_OTHER = 65534


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file, which SHRK_CONFIG names."""
    monkeypatch.setenv("SHRK_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


@pytest.mark.parametrize("text", ["", "memory_gb = 20\n"])
def test_a_node_without_a_model_has_settings_all_the_same(file: Path, text: str) -> None:
    file.write_text(f"temp_max = 66\n{text}")
    settings = read_settings()
    assert (settings.temp_max, catalogue_of(settings)) == (66, {})


def test_settings_that_are_wrong_are_told_as_they_are(file: Path) -> None:
    file.write_text("temp_max = 200\n")
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert f"{file}:1: temp_max" in str(refused.value)
    assert "catalogue.-" not in str(refused.value)


def test_the_folder_that_is_named_wins(file: Path, tmp_path: Path) -> None:
    file.write_text('[catalogue.m]\nsource = "org/m"\n')
    settings = read_settings(tmp_path / "node")
    assert settings.state_dir == tmp_path / "node"
    assert list(catalogue_of(settings)) == ["m"]


def test_a_name_that_is_not_known_has_the_nearest_one_or_all() -> None:
    assert str(unknown("quen", ["qwen", "llama"])) == "'quen' is not in the catalogue; did you mean qwen?"
    assert str(unknown("x", ["qwen", "llama"])) == "'x' is not in the catalogue; known are: llama, qwen"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_owner_of_the_folder_for_the_agent_must_be_able_to_change_what_is_written(
    tmp_path: Path,
) -> None:
    os.chown(tmp_path, _OTHER, _OTHER)
    told = subprocess.run([sys.executable, "-c", _ACTS, str(tmp_path)], capture_output=True, text=True, check=True)
    user, effective, group, home = told.stdout.split()
    assert (int(user), int(effective), int(group)) == (_OTHER, _OTHER, _OTHER)
    assert home != os.environ["HOME"]


def test_in_a_folder_of_ones_own_and_where_there_is_none_one_stays_who_one_is(tmp_path: Path) -> None:
    before = os.getresuid()
    act_as_owner(tmp_path)
    act_as_owner(tmp_path / "none")
    assert os.getresuid() == before
