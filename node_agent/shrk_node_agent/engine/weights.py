"""How large a model is: what its owner says, else what lies in its folder, else what its name tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.state.terms.fit import Model, Shape
from shrk_node_agent.state.terms.model_names import named

#: Far above any model's own description of itself.
CONFIG_BYTES_MAX = 4 * 1024 * 1024


def sized(
    spec: EngineSpec, folder: Path | None, weights_bytes: int | None = None, parameters: float | None = None
) -> Model:
    """What is known of a model's size. `folder`: where its files are; None: not on this machine.

    `weights_bytes` and `parameters` (billions): what its owner says.
    """
    guess = named(spec.source)
    files = weights_in(folder) if folder is not None else 0
    return Model(
        name=spec.id,
        parameters=parameters or guess.parameters,
        quantisation=guess.quantisation,
        weights_bytes=weights_bytes or files or None,
        shape=shape_in(folder) if folder is not None else None,
        slots=spec.slots,
        context_tokens=spec.context_tokens,
        memory_bytes=spec.memory_bytes or None,
    )


def weights_in(folder: Path) -> int:
    """Bytes of the safetensors files there; 0: there are none."""
    return sum(_size(file) for file in folder.glob("*.safetensors"))


def shape_in(folder: Path) -> Shape | None:
    """As its config.json describes it; None where it does not, and the engine will say what is wrong with it."""
    try:
        with (folder / "config.json").open("rb") as file:
            config = json.loads(file.read(CONFIG_BYTES_MAX))
    except (OSError, ValueError):
        return None
    # Models that see or hear describe what speaks in a part of its own.
    return _shape(config.get("text_config", config)) if isinstance(config, dict) else None


def _shape(config: Mapping[str, Any]) -> Shape | None:
    try:
        layers, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head_size = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    whole = min(layers, heads, kv_heads, head_size) > 0
    return Shape(layers, kv_heads, head_size, heads=heads) if whole else None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0  # a link into the cache whose file is gone: it is fetched again
