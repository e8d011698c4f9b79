"""How large a model is: its owner's word, its folder, its name, in this order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.weights import shape_in, sized
from shrk_node_agent.state.terms.fit import Shape

SPEC = EngineSpec("m", "m", "org/Example-7B-Instruct-AWQ")
CONFIG = {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "hidden_size": 2048}


def a_folder(path: Path, config: object) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    for part in (1, 2):
        (path / f"model-{part}.safetensors").write_bytes(b"x" * 500)
    (path / "pytorch_model.bin").write_bytes(b"x" * 9_000)
    return path


def test_a_model_that_is_not_here_has_the_size_that_its_name_tells() -> None:
    model = sized(SPEC, None)
    assert (model.parameters, model.quantisation, model.weights_bytes, model.shape) == (7.0, "awq", None, None)
    assert sized(SPEC, None, parameters=8.2).parameters == 8.2


def test_files_count_before_the_name_and_the_owners_word_before_both(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, CONFIG)
    model = sized(SPEC, folder)
    assert (model.weights_bytes, model.shape) == (1_000, Shape(28, 8, 128, heads=16))
    assert sized(SPEC, folder, weights_bytes=7_000).weights_bytes == 7_000
    assert sized(SPEC, tmp_path / "missing").weights_bytes is None


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({**CONFIG, "head_dim": 64}, Shape(28, 8, 64, heads=16)),
        ({"text_config": CONFIG}, Shape(28, 8, 128, heads=16)),
        ({**CONFIG, "num_key_value_heads": None}, Shape(28, 16, 128, heads=16)),
        ({**CONFIG, "num_attention_heads": 0}, None),
        ({**CONFIG, "num_hidden_layers": "many"}, None),
        ([1], None),
        ({}, None),
    ],
)
def test_a_shape_is_read_where_the_model_describes_one(config: object, shape: Shape | None, tmp_path: Path) -> None:
    assert shape_in(a_folder(tmp_path, config)) == shape
