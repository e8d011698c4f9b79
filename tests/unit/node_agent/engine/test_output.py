"""What an engine writes, on lines that vLLM 0.32 wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shrk_contract.terms import Pin
from shrk_node_agent.engine import output, vllm
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.launch import Launch
from shrk_node_agent.engine.output import EngineOutput, Progress

API = "(APIServer pid=5815) INFO 11-20 12:15:25 [model.py:733] "
WORKER_ERROR = "(Worker pid=5701) ERROR 11-20 12:15:04 [multiproc_executor.py:953] "
BAR = "Loading safetensors checkpoint shards: {:3}% Completed | {}/4 [00:00<?, ?it/s]"


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    spec = EngineSpec(id="e", model="m", source=str(tmp_path))
    return vllm.launch(spec, tmp_path / "s", venv=tmp_path, gpu=False)


@pytest.fixture
def taken(launch: Launch, tmp_path: Path) -> Iterator[EngineOutput]:
    output = EngineOutput(launch, tmp_path / "logs" / "e.log")
    yield output
    output.close()


def feed(taken: EngineOutput, *lines: str) -> list[Progress]:
    return taken.feed("".join(f"{line}\n" for line in lines).encode())


def test_steps_are_told_once_each_in_an_owners_words(taken: EngineOutput) -> None:
    steps = feed(
        taken,
        API + "non-default args: {'uds': 'x'}",
        API + "Resolved architecture: LlamaForCausalLM",
        API + "Enforce eager set, disabling torch.compile",
        "(EngineCore pid=1) INFO 11-20 12:11:54 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: x",
        "(Worker pid=1) INFO 11-20 12:12:11 [cpu_model_runner.py:68] Starting to load model /m...",
        "(EngineCore pid=1) INFO 11-20 12:12:12 [kv_cache_utils.py:2327] CPU KV cache size: 699,008 tokens",
        "(EngineCore pid=1) INFO 11-20 12:12:12 [kv_cache_utils.py:2327] CPU KV cache size: 699,008 tokens",
    )
    assert [step.detail for step in steps] == [
        "reading the model's configuration",
        "starting the engine core",
        "loading weights",
        "warming up",
    ]


def test_bars_give_progress_whether_they_end_in_a_newline_or_a_carriage_return(taken: EngineOutput) -> None:
    received = "\r".join([BAR.format(0, 0), BAR.format(25, 1), BAR.format(25, 1), BAR.format(100, 4)]) + "\n"
    steps = taken.feed(received.encode()) + feed(taken, "Fetching 12 files:   8%|8         | 1/12 [00:01<00:11]")
    assert steps == [
        Progress("loading weights", 0.0),
        Progress("loading weights", 0.25),
        Progress("loading weights", 1.0),
        Progress("downloading", 0.08),
    ]


def test_a_bar_without_a_known_name_speaks_for_itself(taken: EngineOutput) -> None:
    assert feed(taken, "Rolling dice:  50%|#####     | 1/2") == [Progress("rolling dice", 0.5)]


def test_the_tail_holds_the_last_lines_bounded_without_blanks_colours_and_repeated_bars(taken: EngineOutput) -> None:
    feed(taken, *(f"line {number}" for number in range(100)), "", "\x1b[31mred\x1b[0m", "x" * 10_000)
    feed(taken, *(BAR.format(percent, 1) for percent in range(100)))
    assert len(taken.tail) == output.TAIL_LINES
    assert taken.tail[-3] == "red"
    assert taken.tail[-2] == "x" * output.TAIL_LINE_CHARACTERS_MAX
    assert " 99% Completed" in taken.tail[-1]


def test_lines_may_arrive_in_any_pieces_and_the_last_one_unfinished(taken: EngineOutput) -> None:
    whole = "erste Zeile: müde\nsecond\nthird".encode()
    for index in range(len(whole)):
        taken.feed(whole[index : index + 1])
    taken.close()
    assert taken.tail == ("erste Zeile: müde", "second", "third")


def test_a_line_without_an_end_does_not_grow_without_bound(taken: EngineOutput) -> None:
    for _ in range(20):
        taken.feed(b"x" * output.LINE_BYTES_MAX)
    assert len(taken.tail) >= 9


def test_a_wrapped_error_far_up_is_the_cause_and_not_the_wrappers_below_it(taken: EngineOutput) -> None:
    feed(
        taken,
        WORKER_ERROR + "Traceback (most recent call last):",
        WORKER_ERROR + '  File "weight_utils.py", line 1208, in safetensors_weights_iterator',
        WORKER_ERROR + "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: invalid",
        WORKER_ERROR + "Exception: WorkerProc initialization failed due to an exception in a background process. "
        "See stack trace for root cause.",
        *("    raise RuntimeError(" for _ in range(100)),
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    )
    assert taken.cause == "SafetensorError: Error while deserializing header: invalid"
    assert not taken.cause_passes


def test_pydantics_second_line_is_the_cause(taken: EngineOutput) -> None:
    feed(
        taken,
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "  Value error, User-specified max_model_len (999999) is greater than the derived one. [type=value_error]",
        "    For further information visit the documentation",
    )
    assert taken.cause.startswith("ModelConfig: User-specified max_model_len (999999) is greater")


@pytest.mark.parametrize(
    ("line", "cause", "passes"),
    [
        (
            "huggingface_hub.errors.HFValidationError: Repo id must be in the form",
            "HFValidationError: Repo id must be in the form",
            False,
        ),
        ("torch.OutOfMemoryError: CUDA out of memory.", "OutOfMemoryError: CUDA out of memory.", True),
        ("OSError: [Errno 98] Address already in use", "OSError: [Errno 98] Address already in use", True),
        ("KeyboardInterrupt: terminated", "KeyboardInterrupt: terminated", True),
        ("AssertionError", "AssertionError", False),
        ("Exception: plain", "Exception: plain", False),
        ("api_server.py: error: unrecognized arguments: --x", None, False),
        (API + "Found ulimit of 20000 and failed with `OSError: [Errno 24]`", "", False),
        ("    raise HFValidationError(", "", False),
    ],
)
def test_what_counts_as_a_cause(taken: EngineOutput, line: str, cause: str | None, passes: bool) -> None:
    feed(taken, line)
    assert (taken.cause, taken.cause_passes) == (line if cause is None else cause, passes)


def test_the_resolved_types_are_read_from_the_line_that_tells_them(taken: EngineOutput) -> None:
    padding = "speculative_config=None, " * 200
    feed(taken, f"config: model='x', {padding}dtype=torch.bfloat16, quantization=awq, kv_cache_dtype=auto")
    feed(taken, "config: dtype=torch.float32")
    assert taken.pin_parts == {"dtype": "bfloat16", "quantisation": "awq"}


def test_no_quantisation_is_no_word(taken: EngineOutput) -> None:
    feed(taken, "config: quantization=None, quantization_config=None")
    assert taken.pin_parts == {}


def test_the_log_file_is_bounded_with_one_older_beside_it(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LOG_BYTES_MAX", 1000)
    taken = EngineOutput(launch, tmp_path / "e.log")
    for number in range(100):
        feed(taken, f"line {number:4} " + "." * 89)
    taken.close()
    older, newer = (tmp_path / "e.log.1").read_text(), (tmp_path / "e.log").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.log", "e.log.1"]
    assert "line   99" in newer
    assert max(len(older), len(newer)) <= 1000


def test_a_log_that_cannot_be_written_is_said_once_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    taken = EngineOutput(Launch((), {}, Pin()), tmp_path / "file" / "e.log")
    feed(taken, "first")
    feed(taken, "second")
    taken.close()
    assert taken.tail[1:] == ("first", "second")
    assert "is not written any more" in taken.tail[0]
