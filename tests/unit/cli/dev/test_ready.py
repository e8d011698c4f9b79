"""What is printed when the network answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from shrk_cli.dev.plan import EngineKind, Plan, SimulatorSpeed, default_models, node_plans
from shrk_cli.dev.ready import Ready, as_json, summary
from shrk_cli.dev.status import EngineStatus, NodeStatus

READY = Ready(
    port=8080,
    api_key="shrk_caller",
    admin_key="shrk_admin",
    coordinator_pid=10,
    nodes=[
        NodeStatus(
            "dev-1",
            "online",
            node_id="node_a",
            pid=20,
            engines=(EngineStatus("x", "m", "online", pids=(30, 31)), EngineStatus("y", "n", "online", pids=(32,))),
        )
    ],
)


def test_the_line_for_programs_is_one_line_with_exactly_the_promised_fields() -> None:
    line = as_json(READY)
    assert "\n" not in line
    assert json.loads(line) == {
        "schema": 1,
        "base_url": "http://127.0.0.1:8080/v1",
        "api_key": "shrk_caller",
        "admin_key": "shrk_admin",
        "coordinator_pid": 10,
        "nodes": [{"id": "node_a", "name": "dev-1", "pid": 20, "engine_pids": [30, 31, 32], "models": ["m", "n"]}],
    }


def test_the_summary_for_people_holds_address_key_models_and_a_first_request() -> None:
    first, others = default_models("/m")
    plan = Plan(
        state_dir=Path("/tmp/s"),
        temporary=False,
        engine=EngineKind.SIM,
        engine_venv=Path("/v"),
        port=8080,
        restart=True,
        speed=SimulatorSpeed(),
        nodes=node_plans(Path("/tmp/s"), 2, first, others),
    )
    text = summary(READY, plan, 61.4)
    assert "made up" not in text
    script = plan.state_dir / "dev-1" / "gpu.toml"
    heated = summary(READY, replace(plan, scripted_gpu=Path("/x/cool.toml")), 61.4)
    assert f"to heat dev-1: cp HOT {script}.new && mv {script}.new {script}\n" in heated
    for part in (
        "Ready after 61 s",
        "http://127.0.0.1:8080/v1",
        "shrk_caller",
        "shrk_admin",
        "shark-tiny (2 nodes)",
        "curl -N",
    ):
        assert part in text
    assert "shark-tiny-embed (1 node)" in text
