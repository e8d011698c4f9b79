"""What people read of a status document, to the letter."""

from __future__ import annotations

import pytest

from shrk_node_agent.commands.status_text import coloured, is_eligible, status_text
from support.status_documents import engine, gpu, healthy, outside_hours, too_hot

HEALTHY = """\
● shrk 0.1.0  ONLINE · serves 1 of 2 models   node n-7f3a "attic"   up 3 d 4 h   coordinator pool.example:9100
GPU 0  NVIDIA RTX 4090  67/70 °C  312 W  21.8/24 GB  qwen3.5-9b 16 of 16 running, 2 waiting
GPU 1  NVIDIA RTX 3060  38/70 °C   14 W   0.4/12 GB  -
Since the start  1 204 requests · 2.1 M tokens
Schedule  22:00-08:00 Europe/Berlin, closes in 5 h 12 min
Not serving: llama-4-8b: paused, It needs 14.2 GB, and 11.6 GB are free (for 12 min) -> shrk models"""

TOO_HOT = """\
● shrk 0.1.0  COOLING · serves 1 of 2 models   node n-7f3a "attic"   up 3 d 4 h   coordinator pool.example:9100
  GPU 0 is at 69 °C, and takes work again once it was at most 65 °C for 30 s (for 42 s) -> wait, or raise the cap: \
shrk set temp_max 75
GPU 0  NVIDIA RTX 4090  69/70 °C  312 W  21.8/24 GB  [fewer slots]  qwen3.5-9b 16 of 16 running, 2 waiting
GPU 1  NVIDIA RTX 3060  38/70 °C   14 W   0.4/12 GB                 -
Since the start  1 204 requests · 2.1 M tokens
Schedule  22:00-08:00 Europe/Berlin, closes in 5 h 12 min
Not serving: llama-4-8b: paused, It needs 14.2 GB, and 11.6 GB are free (for 12 min) -> shrk models
# Health
#   - GPU 0 slowed down 6 times in the last hour -> improve the airflow
#   - GPU 0 is slowed by its driver: thermal"""

OUTSIDE_HOURS = """\
● shrk 0.1.0  OFF-SCHEDULE · serves 1 of 2 models   node n-7f3a "attic"   up 3 d 4 h   coordinator pool.example:9100
  Its hours are over (for 1 h)"""

NARROW = """\
● shrk 0.1.0  COOLING · serves 1 of 2 models   node n-7f3a
    "attic"   up 3 d 4 h   coordinator pool.example:9100
  GPU 0 is at 69 °C, and takes work again once it was at
    most 65 °C for 30 s (for 42 s) -> wait, or raise the
    cap: shrk set temp_max 75
GPU 0  69/70 °C  [fewer slots]  qwen3.5-9b 16 of 16 running…
GPU 1  38/70 °C                 -
Since the start  1 204 requests · 2.1 M tokens
Schedule  22:00-08:00 Europe/Berlin, closes in 5 h 12 min
Not serving: llama-4-8b: paused, It needs 14.2 GB, and 11.6
    GB are free (for 12 min) -> shrk models
# Health
#   - GPU 0 slowed down 6 times in the last hour -> improve
#     the airflow
#   - GPU 0 is slowed by its driver: thermal"""


def test_a_healthy_node_is_told_in_a_few_lines() -> None:
    assert status_text(healthy()) == HEALTHY


def test_heat_is_told_with_its_reason_its_rung_and_what_to_do() -> None:
    assert status_text(too_hot()) == TOO_HOT


def test_outside_its_hours_a_node_tells_when_they_begin() -> None:
    text = status_text(outside_hours())
    assert text.startswith(OUTSIDE_HOURS)
    assert "\nSchedule  22:00-08:00 Europe/Berlin, closed, opens in 10 h\n" in text


@pytest.mark.parametrize(
    ("zone", "why", "told"),
    [
        ("Europe/Berlin", "the machine's own", "Europe/Berlin (the machine's own), closes"),
        ("UTC", "since this machine names no zone", "UTC (since this machine names no zone), closes"),
        ("UTC", "", "UTC, closes"),
    ],
)
def test_hours_are_told_with_the_zone_in_force_and_why_it_is_that_one(zone: str, why: str, told: str) -> None:
    schedule = {**healthy()["schedule"], "zone": zone, "zone_why": why}
    assert f"\nSchedule  22:00-08:00 {told} in 5 h 12 min\n" in status_text(healthy(schedule=schedule))
    assert "\nSchedule  always, " in status_text(healthy(schedule={**schedule, "text": ""})), "then no zone matters"


def test_a_narrow_terminal_loses_names_and_watts_first_and_no_line_is_longer_than_it() -> None:
    assert status_text(too_hot(), 60) == NARROW


@pytest.mark.parametrize("width", range(40, 140, 7))
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    assert max(map(len, status_text(too_hot(), width).splitlines())) <= width


def test_colours_change_nothing_but_colours() -> None:
    text = status_text(too_hot(), 60, coloured)
    assert "\x1b[1;33mCOOLING\x1b[0m" in text
    for code in ("\x1b[1;33m", "\x1b[33m", "\x1b[1m", "\x1b[0m"):
        text = text.replace(code, "")
    assert text == NARROW


def test_a_node_without_a_link_takes_no_work_whatever_its_engines_say() -> None:
    document = healthy(link="refused", link_reason="The certificate is revoked")
    assert is_eligible(healthy())
    assert is_eligible(healthy(state="busy"))
    assert not is_eligible(document)
    said = "\n  Not linked to the coordinator (refused): The certificate is revoked -> shrk netcheck\n"
    assert said in status_text(document)


def test_what_a_driver_does_not_tell_is_shown_as_unknown() -> None:
    silent = gpu(0, "Some GPU", None, power_watts=None, memory_free_bytes=None)
    assert "\nGPU 0  Some GPU  ?/70 °C  ? W  ?/24 GB  qwen3.5-9b 16 of 16" in status_text(healthy(gpus=[silent]))


def test_a_gpu_that_is_lost_is_said_to_be_lost() -> None:
    lost = gpu(0, "Some GPU", None, lost=True)
    assert "lost: the driver does not find it any more" in status_text(healthy(gpus=[lost]))


def test_models_without_a_gpu_have_lines_of_their_own() -> None:
    text = status_text(healthy(gpus=[], engines=[engine("m", in_flight=3, slots=64), engine("longer")]))
    assert "\nModel  m       3 of 64 running\nModel  longer  0 of 16 running\n" in text


def test_progress_of_a_download_is_told() -> None:
    text = status_text(healthy(engines=[engine("m", state="downloading", progress=0.414, elapsed_seconds=61.0)]))
    assert "Not serving: m: downloading 41 % (for 1 min)" in text


@pytest.mark.parametrize(
    ("paused", "said"), [({"until_seconds": None}, "until `shrk resume`"), ({"until_seconds": 5400.0}, "1 h 30 min")]
)
def test_a_pause_is_told_with_its_end(paused: dict[str, float | None], said: str) -> None:
    assert f"paused {'for another ' if paused['until_seconds'] else ''}{said}" in status_text(healthy(paused=paused))


def test_settings_that_were_not_taken_in_are_told() -> None:
    text = status_text(healthy(settings_error="temp_max: 30 is less than 40"))
    assert "the old ones hold: temp_max: 30 is less than 40 -> shrk config check" in text


def test_a_document_of_an_agent_that_knows_no_gpus_is_told_as_far_as_it_goes() -> None:
    new = ("gpus", "schedule", "paused", "totals", "health", "settings_error", "next_action", "since_seconds")
    document = {k: v for k, v in healthy().items() if k not in (*new, "version", "uptime_seconds", "coordinator")}
    assert status_text(document).startswith('● shrk  ONLINE · serves 1 of 2 models   node n-7f3a "attic"\nModel')


def test_words_from_elsewhere_cannot_move_the_cursor() -> None:
    text = status_text(healthy(state="incompatible", reason="\x1b[2Jgone\nEngine: fine"))
    assert "\x1b" not in text
    assert "\nEngine: fine" not in text
