"""What of a pin lies in a model's files: two engines with equal digests read and write the same tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from shrk_contract.terms import Pin

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
)
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
_WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".gguf", ".pt"})
#: Of each weight file only this much at either end is read: any training changes it, and 100 GB would take minutes.
_WEIGHT_SAMPLE_BYTES = 1024 * 1024


def complete_pin(pin: Pin, source: str | None, env: Mapping[str, str]) -> Pin:
    """`pin` with the digests of the model's files; unchanged where its files are not on this machine.

    Reads tens of megabytes: call it in a thread. Raises OSError where a file cannot be read.
    """
    folder = None if source is None else model_folder(source, env)
    if folder is None:
        return pin
    return replace(
        pin,
        model_revision=_revision(folder),
        tokenizer_digest=_digest(folder / name for name in _TOKENIZER_FILES),
        chat_template_digest=_template_digest(folder),
    )


def model_folder(source: str, env: Mapping[str, str]) -> Path | None:
    """Where the files are: `source` itself, or its snapshot in Hugging Face's cache; None when not here."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    home = Path(env.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(env.get("HF_HUB_CACHE") or home / "hub")
    repository = cache / ("models--" + source.replace("/", "--"))
    try:
        revision = (repository / "refs" / "main").read_text().strip()
    except OSError:
        return None  # Not downloaded, or no Hugging Face id at all.
    snapshot = repository / "snapshots" / revision
    return snapshot if snapshot.is_dir() else None


def _revision(folder: Path) -> str:
    """The commit for a snapshot of Hugging Face's, else a digest of the configuration and of the weights."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256(_digest([folder / "config.json"]).encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in _WEIGHT_SUFFIXES:
            size = path.stat().st_size
            digest.update(f"\n{path.name} {size}\n".encode())
            with path.open("rb") as weights:
                digest.update(weights.read(_WEIGHT_SAMPLE_BYTES))
                weights.seek(max(0, size - _WEIGHT_SAMPLE_BYTES))
                digest.update(weights.read(_WEIGHT_SAMPLE_BYTES))
    return digest.hexdigest()


def _template_digest(folder: Path) -> str:
    if found := _digest(folder / name for name in _TEMPLATE_FILES):
        return found
    try:
        template = json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (FileNotFoundError, ValueError):
        return ""  # No template, or none that can be read: the engine has said so in its own words.
    return hashlib.sha256(json.dumps(template).encode()).hexdigest() if template else ""


def _digest(paths: Iterable[Path]) -> str:
    """sha256 over names and contents of those files that exist, in the given order; empty when none does."""
    digest, found = hashlib.sha256(), False
    for path in paths:
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode() + content)
            found = True
    return digest.hexdigest() if found else ""
