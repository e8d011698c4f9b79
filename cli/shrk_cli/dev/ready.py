"""What `shrk dev` prints when its network answers: one line of JSON, or a summary for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from shrk_cli.dev.plan import AGENT_DRAIN_SECONDS, Plan
from shrk_cli.dev.status import NodeStatus

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Ready:
    """A network that answers."""

    port: int
    api_key: str
    admin_key: str
    coordinator_pid: int
    nodes: Sequence[NodeStatus]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def as_json(ready: Ready) -> str:
    """The line that programs read."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "base_url": ready.base_url,
            "api_key": ready.api_key,
            "admin_key": ready.admin_key,
            "coordinator_pid": ready.coordinator_pid,
            "nodes": [
                {
                    "id": node.node_id,
                    "name": node.name,
                    "pid": node.pid,
                    # Each engine's own process, followed by what it started.
                    "engine_pids": [pid for engine in node.engines for pid in engine.pids],
                    "models": [engine.model for engine in node.engines],
                }
                for node in ready.nodes
            ],
        }
    )


def summary(ready: Ready, plan: Plan, seconds: float) -> str:
    """The same for a person, with a first request to try."""
    models = ", ".join(f"{name} ({count(nodes, 'node')})" for name, nodes in plan.expected().items())
    model = next(iter(plan.expected()))
    kept = "removed at the end" if plan.temporary else "kept"
    return f"""
Ready after {seconds:.0f} s: {count(len(ready.nodes), "node")}, engine {plan.engine.value}.

  base_url   {ready.base_url}
  api key    {ready.api_key}
  admin key  {ready.admin_key}
  models     {models}
  state      {plan.state_dir} ({kept}), logs in {plan.logs_dir.name}/{_gpus(plan)}

  curl -N {ready.base_url}/chat/completions \\
    -H "Authorization: Bearer {ready.api_key}" -H "Content-Type: application/json" \\
    -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Count to 10"}}]}}'

Ctrl-C stops everything; nodes have {AGENT_DRAIN_SECONDS:g} s to finish what they run."""


def _gpus(plan: Plan) -> str:
    """Where to heat a node, as one more line; "": its GPUs are not made up."""
    script = plan.script_of(plan.nodes[0])
    if script is None:
        return ""
    how = f"cp HOT {script}.new && mv {script}.new {script}"
    return f"\n  gpus       made up; to heat {plan.nodes[0].name}: {how}"


def count(number: int, noun: str) -> str:
    """A number and its noun: "1 node", "2 nodes"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
