"""Pins from a model's files: equal files give equal pins, and any difference that matters shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shrk_contract.terms import Pin
from shrk_node_agent.engine.pin import complete_pin

BEFORE = Pin(engine="vllm", dtype="float32")


def model(folder: Path, **changed: bytes) -> Path:
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"vocabulary",
        "chat_template.jinja": b"{{ messages }}",
        "model.safetensors": bytes(5_000_000),
    }
    folder.mkdir(parents=True)
    for name, content in {**files, **changed}.items():
        (folder / name).write_bytes(content)
    return folder


def pin_of(folder: Path) -> Pin:
    return complete_pin(BEFORE, str(folder), {})


def test_equal_files_give_equal_pins_wherever_they_lie(tmp_path: Path) -> None:
    first, second = pin_of(model(tmp_path / "a")), pin_of(model(tmp_path / "b"))
    assert first == second
    assert (first.engine, first.dtype) == ("vllm", "float32")
    assert all(len(d) == 64 for d in (first.model_revision, first.tokenizer_digest, first.chat_template_digest))


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("tokenizer.json", b"another", "tokenizer_digest"),
        ("chat_template.jinja", b"another", "chat_template_digest"),
        ("config.json", b"[]", "model_revision"),
        ("model.safetensors", bytes(4_999_999) + b"x", "model_revision"),
        ("model.safetensors", b"x" + bytes(4_999_999), "model_revision"),
        ("model.safetensors", bytes(4_999_999), "model_revision"),
    ],
)
def test_another_file_changes_its_part_of_the_pin_and_no_other(
    tmp_path: Path, file: str, content: bytes, part: str
) -> None:
    one, other = pin_of(model(tmp_path / "a")), pin_of(model(tmp_path / "b", **{file: content}))
    parts = ("model_revision", "tokenizer_digest", "chat_template_digest")
    assert [name for name in parts if getattr(one, name) != getattr(other, name)] == [part]


def test_a_template_inside_the_tokenizers_configuration_counts(tmp_path: Path) -> None:
    def with_template(name: str, template: str) -> Pin:
        content = json.dumps({"chat_template": template}).encode()
        folder = model(tmp_path / name, **{"tokenizer_config.json": content})
        (folder / "chat_template.jinja").unlink()
        return pin_of(folder)

    assert with_template("a", "x").chat_template_digest != with_template("b", "y").chat_template_digest
    assert with_template("c", "").chat_template_digest == ""


def test_a_downloaded_model_is_named_by_its_commit(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    model(repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    pin = complete_pin(BEFORE, "org/name", {"HF_HOME": str(tmp_path)})
    assert pin.model_revision == "abc123"
    assert len(pin.tokenizer_digest) == 64


def test_files_that_are_not_here_leave_the_pin_as_it_was(tmp_path: Path) -> None:
    assert complete_pin(BEFORE, "org/name", {"HF_HOME": str(tmp_path)}) == BEFORE
    assert complete_pin(BEFORE, None, {}) == BEFORE
