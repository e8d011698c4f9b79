"""Which files of a model are fetched, and whether the disk has room for them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_node_agent.engine.fetch import DISK, UNSAFE, Refused, check_disk, gigabytes, is_commit, wanted


def test_weights_are_safetensors_and_what_runs_code_stays_where_it_is() -> None:
    paths = ["model-1.safetensors", "pytorch_model.bin", "a.pt", "modeling.py", "config.json", "x/tokenizer.model"]
    assert wanted(paths) == ["config.json", "model-1.safetensors", "x/tokenizer.model"]


def test_of_weights_that_are_there_twice_one_copy_is_fetched() -> None:
    beside = ["original/model.safetensors", "onnx/a.json", "unet/model.safetensors"]
    assert wanted(["consolidated.safetensors", "model-1.safetensors", *beside]) == ["model-1.safetensors"]
    assert wanted(["consolidated.safetensors", "params.json"]) == ["consolidated.safetensors", "params.json"]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["config.json", "pytorch_model.bin"], "it holds only pytorch_model.bin and the like, which can run code"),
        (["README.md"], "it holds no weights; name a model whose weights are *.safetensors files"),
        (["gguf/model.safetensors"], "it holds no weights"),
    ],
)
def test_a_model_without_safe_weights_is_refused_in_words(paths: list[str], words: str) -> None:
    with pytest.raises(Refused) as refused:
        wanted(paths)
    assert refused.value.kind == UNSAFE
    assert words in str(refused.value)


@given(needed=st.integers(0, 10**15), free=st.integers(0, 10**15), reserve=st.integers(0, 10**12))
def test_what_has_room_beside_the_reserve_passes_and_all_else_does_not(needed: int, free: int, reserve: int) -> None:
    has_room = needed == 0 or free - needed >= reserve
    with nullcontext() if has_room else pytest.raises(Refused):
        check_disk(needed, free, reserve, Path("/models"))


def test_a_full_disk_is_told_with_what_is_needed_there_and_to_be_freed() -> None:
    with pytest.raises(Refused) as refused:
        check_disk(16_100_000_000, 10_200_000_000, 5_000_000_000, Path("/models"))
    assert refused.value.kind == DISK
    assert str(refused.value) == (
        "16.1 GB are still to be fetched into /models, whose disk has 10.2 GB free, of which 5.0 GB stay reserved; "
        "free 10.9 GB there"
    )


@given(count=st.integers(0, 10**15))
def test_what_is_to_be_freed_is_never_rounded_to_less(count: int) -> None:
    figure, unit = gigabytes(count).split()
    assert round(float(figure) * 10) * {"GB": 10**8, "MB": 10**5}[unit] >= count


def test_only_a_full_hash_is_a_commit() -> None:
    assert is_commit("0123456789abcdef" * 2 + "01234567")
    assert not is_commit("main")
    assert not is_commit("0123456")
