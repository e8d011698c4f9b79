"""What names tell of sizes, as publishers write them."""

from __future__ import annotations

import pytest

from shrk_node_agent.state.terms.model_names import Named, named


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", Named(0.5)),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", Named(7.0, "awq")),
        ("Qwen/Qwen3-30B-A3B-GPTQ-Int4", Named(30.0, "gptq")),
        ("meta-llama/Llama-3.2-1B-Instruct", Named(1.0)),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", Named(56.0)),
        ("google/gemma-3-270m-it", Named(0.27)),
        ("google/gemma-3n-E4B-it", Named(4.0)),
        ("neuralmagic/Meta-Llama-3.1-70B-Instruct-FP8", Named(70.0, "fp8")),
        ("RedHatAI/Qwen3-8B-quantized.w4a16", Named(8.0, "int4")),
        ("openai/gpt-oss-20b", Named(20.0, "mxfp4")),
        ("/srv/models/Phi-3-mini-128k-instruct/", Named()),
        ("sentence-transformers/all-MiniLM-L6-v2", Named()),
        ("mistralai/Mistral-Nemo-Instruct-2407", Named()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_name_tells_the_size_and_the_quantisation_or_nothing(source: str, told: Named) -> None:
    assert named(source) == told
