"""GPUs of a machine that is thought up: as values, and as a script for the settings."""

from __future__ import annotations

import json
from pathlib import Path

from shrk_node_agent.state.devices import GpuReading


def a_gpu(index: int, gigabytes: float, name: str = "NVIDIA GeForce RTX 4090") -> GpuReading:
    """One of so many GB of 1,000,000,000."""
    return GpuReading(f"GPU-{index}", index, name, memory_bytes=int(gigabytes * 1e9), temperature_celsius=40.0)


def scripted(path: Path, *gigabytes: float) -> str:
    """Lines of a settings file for a machine with GPUs of these sizes, whose script is written to `path`."""
    gpus = [{"name": "NVIDIA GeForce RTX 4090", "memory_gb": size, "temperatures": [[0, 40]]} for size in gigabytes]
    path.write_text(json.dumps({"gpu": gpus}))
    return f'gpu = "scripted"\nscripted_gpu = "{path}"\n'
