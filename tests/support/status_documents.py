"""Status documents as an agent with two GPUs serves them: healthy, too hot, outside its hours."""

from __future__ import annotations

import copy
from typing import Any

GB = 1 << 30


def gpu(index: int, name: str, celsius: float | None, **other: Any) -> dict[str, Any]:
    """One GPU; `other` replaces fields."""
    return {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": name,
        "temperature_celsius": celsius,
        "cap_celsius": 70.0,
        "power_watts": 312.4,
        "memory_bytes": 24 * GB,
        "memory_free_bytes": int(2.2 * GB),
        "utilisation": 0.97,
        "rung": "",
        "lost": False,
        "throttle": [],
        **other,
    }


def engine(model: str, **other: Any) -> dict[str, Any]:
    """One engine that is online; `other` replaces fields."""
    return {
        "id": model,
        "model": model,
        "source": f"org/{model}",
        "state": "online",
        "reason": "",
        "detail": "",
        "progress": None,
        "elapsed_seconds": 720.0,
        "in_flight": 0,
        "slots": 16,
        "pids": [],
        "tail": [],
        **other,
    }


_HEALTHY: dict[str, Any] = {
    "schema": 1,
    "revision": 7,
    "pid": 4711,
    "node_id": "n-7f3a",
    "name": "attic",
    "state": "online",
    "reason": "",
    "next_action": "",
    "since_seconds": 3600.0,
    "link": "connected",
    "link_reason": "",
    "version": "0.1.0",
    "uptime_seconds": 3 * 86_400 + 4 * 3_600 + 55,
    "coordinator": "pool.example:9100",
    "engines": [
        engine("qwen3.5-9b", in_flight=18, gpus=[0]),
        engine(
            "llama-4-8b", state="paused", reason="It needs 14.2 GB, and 11.6 GB are free", next_action="shrk models"
        ),
    ],
    "gpus": [
        gpu(0, "NVIDIA RTX 4090", 67.0),
        gpu(1, "NVIDIA RTX 3060", 38.4, power_watts=14.2, memory_bytes=12 * GB, memory_free_bytes=int(11.6 * GB)),
    ],
    "schedule": {
        "text": "22:00-08:00",
        "zone": "Europe/Berlin",
        "open": True,
        "closes_in_seconds": 18_720.0,
        "opens_in_seconds": None,
    },
    "paused": None,
    "totals": {"requests": 1204, "tokens": 2_130_000},
    "health": [],
    "settings_error": "",
}


def healthy(**other: Any) -> dict[str, Any]:
    """A node that serves one of its two models; `other` replaces fields."""
    return {**copy.deepcopy(_HEALTHY), **other}


def too_hot() -> dict[str, Any]:
    """Its first GPU is at the cap, and slots are taken away."""
    hot = gpu(0, "NVIDIA RTX 4090", 69.0, rung="fewer slots", throttle=["thermal"])
    return healthy(
        state="cooling",
        reason="GPU 0 is at 69 °C, and takes work again once it was at most 65 °C for 30 s",
        next_action="wait, or raise the cap: shrk set temp_max 75",
        since_seconds=42.0,
        gpus=[hot, *healthy()["gpus"][1:]],
        health=[{"what": "GPU 0 slowed down 6 times in the last hour", "next": "improve the airflow"}],
    )


def outside_hours() -> dict[str, Any]:
    """Its window opens in ten hours."""
    schedule = {**healthy()["schedule"], "open": False, "closes_in_seconds": None, "opens_in_seconds": 36_000.0}
    return healthy(state="off-schedule", reason="Its hours are over", next_action="", schedule=schedule)
