"""What a machine's settings come to: how its engines are started, and how their models are fetched."""

from __future__ import annotations

from functools import partial

from shrk_node_agent.engine import simulator, vllm
from shrk_node_agent.engine.download import Downloads
from shrk_node_agent.engine.launch import Launcher
from shrk_node_agent.engine.revisions import RevisionLock
from shrk_node_agent.errors import AgentCannotRun
from shrk_node_agent.sensors.choose import nvidia_is_here
from shrk_node_agent.sensors.gpu import GpuKind
from shrk_node_agent.settings import AgentSettings, EngineKind


def launcher(settings: AgentSettings) -> Launcher:
    """How this machine starts engines. Raises AgentCannotRun where it cannot."""
    if settings.engine is EngineKind.SIM:
        speed = settings.sim
        pretended = simulator.SimulatorSpeed(speed.first_token_ms, speed.tokens_per_second, speed.jitter_ms)
        return partial(simulator.launch, speed=pretended)
    if vllm.installed(settings.engine_venv) is None:
        raise AgentCannotRun(
            f"There is no vLLM in {settings.engine_venv}. Install it (make engine for the CPU build; README says how "
            "for NVIDIA), name its environment with "
            "SHRK_ENGINE_VENV=DIR, or try the simulated engine with SHRK_ENGINE=sim"
        )
    return partial(vllm.launch, venv=settings.engine_venv, gpu=_uses_gpus(settings))


def downloads(settings: AgentSettings) -> Downloads:
    """How this machine fetches models: with the engine's own library, into the state folder."""
    return Downloads(
        python=settings.engine_venv / "bin" / "python",
        cache=settings.state_dir / "models",
        lock=RevisionLock(settings.state_dir / "models.lock"),
        run=settings.state_dir / "run",
    )


def _uses_gpus(settings: AgentSettings) -> bool:
    """Whether engines get GPUs: only such as somebody watches."""
    return settings.gpu is GpuKind.NVML or (settings.gpu is GpuKind.AUTO and nvidia_is_here())
