"""Scripts for made-up GPUs: which are taken, how each node gets its own, and those that we ship."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shrk_cli.dev.plan import EngineKind, Plan, SimulatorSpeed, default_models, node_plans
from shrk_cli.dev.scripted import SCRIPT_BYTES_MAX, check, lay_down, parse_script
from shrk_cli.errors import Exit, Trouble
from shrk_node_agent.sensors.script import read_script
from support.house import ROOT

COOL, HOT = ROOT / "examples" / "gpu-cool.toml", ROOT / "examples" / "gpu-hot.toml"


@pytest.fixture
def lifeline() -> Iterator[int]:
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


def plan(folder: Path, script: Path | None) -> Plan:
    first, others = default_models("/m")
    return Plan(
        state_dir=folder,
        temporary=True,
        engine=EngineKind.SIM,
        engine_venv=Path("/venv"),
        port=0,
        restart=True,
        speed=SimulatorSpeed(),
        nodes=node_plans(folder, 2, first, others),
        scripted_gpu=script,
    )


def test_a_script_is_named_from_where_one_stands(tmp_path: Path) -> None:
    (tmp_path / "a.toml").touch()
    assert parse_script(Path("a.toml"), tmp_path) == tmp_path / "a.toml"


@pytest.mark.parametrize(("name", "why"), [("none.toml", "No such file"), ("", "directory"), ("large", "no script")])
def test_what_is_no_file_that_can_be_read_is_a_usage_error(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "large").write_bytes(b" " * (SCRIPT_BYTES_MAX + 1))
    with pytest.raises(Trouble, match=r"--scripted-gpu .* cannot be used") as refused:
        parse_script(Path(name), tmp_path)
    assert (refused.value.code, why in refused.value.why) == (Exit.USAGE, True)


def test_each_node_has_its_own_copy_and_a_later_start_begins_anew(tmp_path: Path) -> None:
    made = plan(tmp_path, COOL)
    for node in made.nodes:
        node.directory.mkdir()
        (node.directory / "gpu.toml").write_bytes(HOT.read_bytes())
        lay_down(made, node)
        assert [path.name for path in node.directory.iterdir()] == ["gpu.toml"]
        assert (node.directory / "gpu.toml").read_bytes() == COOL.read_bytes()
    lay_down(replace(made, scripted_gpu=None), made.nodes[0])


async def test_a_script_that_cannot_be_played_ends_it_before_anything_starts(tmp_path: Path, lifeline: int) -> None:
    await check(plan(tmp_path, None), os.environ, lifeline)
    await check(plan(tmp_path, HOT), os.environ, lifeline)
    (tmp_path / "wrong.toml").write_text("[[gpu]]\ntemperatur = 45\n")
    with pytest.raises(Trouble, match=r"playing .*wrong.toml failed"):
        await check(plan(tmp_path, tmp_path / "wrong.toml"), os.environ, lifeline)


def test_of_the_scripts_that_we_ship_one_is_cool_and_one_becomes_too_hot() -> None:
    [cool], [hot] = read_script(COOL).gpu, read_script(HOT).gpu
    assert cool.celsius_at(600) == 45
    assert (hot.celsius_at(0), hot.celsius_at(600)) == (60, 74)
    # Else there were two GPUs, or another one.
    assert (cool.name, cool.memory_gb) == (hot.name, hot.memory_gb)
