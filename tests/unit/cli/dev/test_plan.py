"""The plan: which node serves what, and the settings each agent gets."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from shrk_cli.dev.plan import (
    EngineKind,
    Model,
    Plan,
    SimulatorSpeed,
    agent_config,
    check_state_dir,
    default_models,
    node_plans,
    parse_models,
)
from shrk_cli.errors import Exit, Trouble

STATE = Path("/tmp/shrk-x")
AS_FAST_AS_IT_CAN = SimulatorSpeed()


def plan(*, nodes: int = 3, speed: SimulatorSpeed = AS_FAST_AS_IT_CAN) -> Plan:
    first, others = default_models("/cache/shark-tiny")
    return Plan(
        state_dir=STATE,
        temporary=True,
        engine=EngineKind.SIM,
        engine_venv=Path("/venv"),
        port=8080,
        restart=True,
        speed=speed,
        nodes=node_plans(STATE, nodes, first, others),
    )


def test_by_default_every_node_serves_shark_tiny_and_the_first_also_embeds() -> None:
    made = plan()
    assert [node.name for node in made.nodes] == ["dev-1", "dev-2", "dev-3"]
    assert made.expected() == {"shark-tiny": 3, "shark-tiny-embed": 1}


def test_an_agents_settings_name_the_coordinator_the_engine_and_each_model() -> None:
    made = plan()
    settings = tomllib.loads(agent_config(made, made.nodes[0], link_port=9100))
    assert settings == {
        "controller": "tcp://127.0.0.1:9100",
        "state_dir": "/tmp/shrk-x/dev-1",
        "name": "dev-1",
        "drain_seconds": 20,
        "engine": "sim",
        "gpu": "none",
        "engine_venv": "/venv",
        "models": ["shark-tiny", "shark-tiny-embed"],
        "catalogue": {
            "shark-tiny": {"source": "/cache/shark-tiny"},
            "shark-tiny-embed": {"source": "/cache/shark-tiny", "task": "embed"},
        },
    }


def test_the_simulators_speed_is_written_only_where_it_was_given() -> None:
    made = plan(speed=SimulatorSpeed(first_token_ms=200))
    assert tomllib.loads(agent_config(made, made.nodes[0], 1))["sim"] == {"first_token_ms": 200}


def test_with_a_script_every_node_plays_its_own_copy_of_it() -> None:
    for suffix in ("toml", "json"):
        made = replace(plan(), scripted_gpu=Path(f"/here/hot.{suffix}"))
        settings = [tomllib.loads(agent_config(made, node, 1)) for node in made.nodes]
        assert {one["gpu"] for one in settings} == {"scripted"}
        assert [one["scripted_gpu"] for one in settings] == [f"{STATE}/dev-{n}/gpu.{suffix}" for n in (1, 2, 3)]


def test_one_node_alone_uses_real_cards_as_it_would_anywhere_and_several_use_none_and_say_so() -> None:
    vllm = replace(plan(), engine=EngineKind.VLLM)
    assert "use none of its GPUs" in vllm.unused(nvidia=True)
    assert [vllm.unused(nvidia=False), plan().unused(nvidia=True)] == ["", ""]
    alone = replace(vllm, nodes=vllm.nodes[:1])
    assert alone.unused(nvidia=True) == ""
    found = [tomllib.loads(agent_config(one, one.nodes[0], 1))["gpu"] for one in (vllm, alone, plan())]
    assert found == ["none", "auto", "none"]


def test_names_and_paths_with_quotes_survive_the_settings_file() -> None:
    odd = Model('org/mo"del', 'C:\\odd "path"\n\x7f é')
    made = plan()
    node = replace(made.nodes[0], models=(odd,))
    settings = tomllib.loads(agent_config(made, node, 1))
    assert settings["models"] == [odd.name]
    assert settings["catalogue"] == {odd.name: {"source": odd.source}}


def test_a_model_is_a_folder_when_it_looks_like_one_or_exists_and_an_id_otherwise(tmp_path: Path) -> None:
    here = tmp_path / "weights" / "here"
    here.mkdir(parents=True)
    models = parse_models(["a=weights/here", "b=./weights", "c=org/name", f"d={here}", "org/e=~"], tmp_path)
    assert {model.name: model.source for model in models} == {
        "a": str(here),
        "b": str(here.parent),
        "c": "org/name",
        "d": str(here),
        "org/e": str(Path.home().resolve()),
    }


@pytest.mark.parametrize("source", ["/nonexistent", "./nowhere", "../nowhere", "~/no/where", "~nobody-of-this-name/m"])
def test_a_folder_that_does_not_exist_is_a_usage_error_before_anything_starts(source: str, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=f"--model a={source} cannot be used") as caught:
        parse_models([f"a={source}"], tmp_path)
    assert caught.value.code == Exit.USAGE
    assert "does not exist" in caught.value.why or "no such user" in caught.value.why


@pytest.mark.parametrize("value", ["name", "=path", "name=", "sp ace=x", "-dash=x", "", f"{'n' * 129}=x"])
def test_a_model_option_that_makes_no_sense_is_a_usage_error_naming_it(value: str) -> None:
    with pytest.raises(Trouble, match="--model") as caught:
        parse_models([value], Path("/"))
    assert caught.value.code == Exit.USAGE
    assert value in caught.value.what


def test_one_name_for_two_models_is_a_usage_error() -> None:
    with pytest.raises(Trouble) as caught:
        parse_models(["a=/tmp", "a=/"], Path("/"))
    assert "given twice" in caught.value.why


def test_a_state_folder_may_be_so_long_that_the_longest_socket_path_still_fits() -> None:
    check_state_dir(Path("/" + "x" * 40))
    with pytest.raises(Trouble, match="42 bytes, at most 41") as caught:
        check_state_dir(Path("/" + "é" * 20 + "x"))
    assert caught.value.code == Exit.USAGE
