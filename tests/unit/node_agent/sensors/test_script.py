"""The script of a scripted GPU: two forms of it, and every mistake named with its field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shrk_node_agent.sensors.gpu import Metric, SensorsFailed
from shrk_node_agent.sensors.script import SCRIPT_BYTES_MAX, ScriptedGpu, Setting, read_script

TOML = """
[[gpu]]
name = "One"
memory_gb = 12
temperatures = [[0, 45], [20, 72]]
power_limit = "settable"
untold = ["power"]

[[gpu]]
heat = { ambient = 30 }
processes = [{ pid = 4242, memory_gb = 1.5 }]
"""


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    as_toml, as_json = tmp_path / "script.toml", tmp_path / "script.json"
    as_toml.write_text(TOML)
    as_json.write_text(
        json.dumps(
            {
                "gpu": [
                    {
                        "name": "One",
                        "memory_gb": 12,
                        "temperatures": [[0, 45], [20, 72]],
                        "power_limit": "settable",
                        "untold": ["power"],
                    },
                    {"heat": {"ambient": 30}, "processes": [{"pid": 4242, "memory_gb": 1.5}]},
                ]
            }
        )
    )
    script = read_script(as_toml)
    assert script == read_script(as_json)
    one, two = script.gpu
    assert (one.power_limit, one.untold, one.memory_gb) == (Setting.SETTABLE, {Metric.POWER}, 12.0)
    assert two.heat is not None
    assert two.heat.model().ambient_celsius == 30


def test_temperatures_run_straight_between_the_pairs_and_the_last_one_stays() -> None:
    gpu = ScriptedGpu(temperatures=((10, 40), (20, 60), (30, 50)))
    assert [gpu.celsius_at(seconds) for seconds in (0, 10, 15, 20, 25, 30, 1000)] == [40, 40, 50, 60, 55, 50, 50]


def test_without_a_word_about_heat_a_gpu_is_cool() -> None:
    assert ScriptedGpu().celsius_at(5) == 40
    assert ScriptedGpu(temperature=-1).celsius_at(5) == -1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON (a script in TOML must be called .toml)"),
        ('{"gpus": []}', "gpus: Extra inputs are not permitted"),
        ('{"gpu": [{"temperatur": 3}]}', "gpu.0.temperatur: Extra inputs"),
        ('{"gpu": [{"load": 2}]}', "gpu.0.load: Input should be less than or equal to 1, not 2"),
        ('{"gpu": [{"temperature": NaN}]}', "gpu.0.temperature: Input should be a finite number"),
        ('{"gpu": [{"power_limit": "maybe"}]}', "'settable', 'refused', 'ignored' or 'unsupported', not 'maybe'"),
        ('{"gpu": [{"untold": ["fan"]}]}', "gpu.0.untold.0: Input should be 'name'"),
        ('{"gpu": [{"temperature": 3, "heat": {}}]}', "temperature and heat contradict each other; keep one"),
        ('{"gpu": [{"temperatures": [[5, 40], [5, 50]]}]}', "the seconds must grow"),
        ('{"gpu": [{"power_limit_range": [300, 200]}]}', "300 is more than 200; write the lower one first"),
        ('{"gpu": [{"uuid": "GPU-1"}, {"uuid": "GPU-1"}]}', "two of them have the same uuid"),
        ("[]", "the script: Input should be"),
        ("\x00" * 5, "is not JSON"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_field(tmp_path: Path, text: str, told: str) -> None:
    script = tmp_path / "script.json"
    script.write_text(text)
    with pytest.raises(SensorsFailed) as failed:
        read_script(script)
    assert str(failed.value).startswith(f"scripted_gpu: {script}")
    assert told in str(failed.value)


def test_a_file_that_is_not_there_is_a_folder_or_is_no_script_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (SCRIPT_BYTES_MAX + 1))
    for path, told in ((tmp_path / "none.json", "No such file"), (tmp_path, "directory"), (large, "is it a script?")):
        with pytest.raises(SensorsFailed, match=told):
            read_script(path)
