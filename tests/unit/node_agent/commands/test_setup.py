"""`shrk setup`: what is asked, what is written, and that nothing is written before the last word."""

from __future__ import annotations

import io
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.setup import Given, NotWritten, Person, app, run
from shrk_node_agent.config import check
from support.asked_agent import PlayedAgent
from support.gpus import scripted
from support.join_tokens import A_TOKEN as TOKEN
from support.terminal import at_a_terminal

LINE = f"SHRK_CONTROLLER=tcp://10.0.0.1:9100 SHRK_JOIN_TOKEN={TOKEN} shrk node run"
ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
BEFORE = """\
# Ours, for years.
temp_max = 65  # summer
when = "idle"

[catalogue.mine]  # trained here
source = "org/mine"
slots = 4
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file that is not there yet, of a machine with one GPU, which the environment tells."""
    for line in scripted(tmp_path / "gpu.json", 24).splitlines():
        name, _, value = line.partition(" = ")
        monkeypatch.setenv(f"SHRK_{name.upper()}", value.strip('"'))
    monkeypatch.setenv("SHRK_STATE_DIR", str(tmp_path / "node"))
    monkeypatch.setenv("SHRK_CONFIG", str(tmp_path / "etc" / "config.toml"))
    monkeypatch.delenv("SHRK_JOIN_TOKEN", raising=False)
    return tmp_path / "etc" / "config.toml"


def written(file: Path) -> Mapping[str, Any]:
    return tomllib.loads(file.read_text())


def answered(*lines: str, given: Given | None = None) -> str:
    """What is shown to somebody who types these lines."""
    shown = io.StringIO()
    run(Person(io.StringIO("".join(f"{line}\n" for line in lines)), shown), given or Given(), ask=True)
    return shown.getvalue()


def setup(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*words])
    return result.exit_code, result.stdout, result.stderr


def test_the_join_line_and_enter_everywhere_make_a_node_with_the_best_model_that_fits(file: Path) -> None:
    told = answered(LINE, "", "", "", "", "", "")
    assert written(file) == {
        "controller": "tcp://10.0.0.1:9100",
        "join_token": TOKEN,
        "temp_max": 70,
        "catalogue": {"gpt-oss-20b": {"source": "openai/gpt-oss-20b", "context_tokens": 16384, "weights_gb": 13.8}},
    }
    assert check().catalogue
    assert file.stat().st_mode & 0o777 == 0o600, "it holds a join token"
    assert "# How warm a GPU may become" in file.read_text(), "every setting stands there with what it is for"
    assert TOKEN not in told
    assert "join_token = ********" in told
    assert told.endswith("Next: shrk start\n")


def test_each_answer_is_judged_at_once_and_asked_again(file: Path) -> None:
    told = answered(
        *("10.0.0.1", LINE, "rig-1", "120", "68", "22-8", "22:00-08:00", ADDRESS.lower(), ADDRESS, "99", "2", "yes"),
    )
    assert written(file) | {"catalogue": ...} == {
        "controller": "tcp://10.0.0.1:9100",
        "join_token": TOKEN,
        "name": "rig-1",
        "temp_max": 68,
        "schedule": "22:00-08:00",
        "payout_address": ADDRESS,
        "catalogue": ...,
    }
    for words in ("neither an address", "allowed is 40 to 95", "not HH:MM-HH:MM", "no checksum", "not in the list"):
        assert words in told


def test_a_line_without_the_link_s_address_makes_it_a_proposal(file: Path) -> None:
    curl = f"curl -fsSL http://pool.example:8080/install | sudo sh -s -- --token {TOKEN}"
    told = answered(curl, "", "", "", "", "", "", "")
    assert "The coordinator's address, tcp://HOST:PORT [tcp://pool.example:9100]: " in told
    assert written(file)["controller"] == "tcp://pool.example:9100"


def test_a_second_time_what_is_there_is_proposed_and_comments_and_other_keys_stay(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(BEFORE)
    told = answered("tcp://10.0.0.1:9100", TOKEN, "", "", "", "", "none", "")
    added = f'controller = "tcp://10.0.0.1:9100"\njoin_token = "{TOKEN}"\n'
    assert file.read_text() == BEFORE.replace('when = "idle"\n', f'when = "idle"\n{added}')
    assert "No GPU warmer than, in °C [65]: " in told
    assert "Models in the catalogue: mine\n" in told


def test_a_model_that_is_added_joins_those_that_are_served(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(f'models = ["mine"]\ncontroller = "tcp://a:1"\njoin_token = "{TOKEN}"\n{BEFORE}')
    answered("", "", "", "", "", "", "org/new", "")
    assert written(file)["models"] == ["mine", "new"]
    assert written(file)["catalogue"]["new"] == {"source": "org/new"}
    assert "# trained here" in file.read_text()


def test_where_nothing_changes_nothing_is_written(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(f'controller = "tcp://a:1"\njoin_token = "{TOKEN}"\n{BEFORE}')
    before = file.stat()
    assert "Nothing changes" in answered("", "", "", "", "", "", "")
    assert file.stat() == before


def test_a_node_that_has_joined_needs_neither_address_nor_token(file: Path, tmp_path: Path) -> None:
    (tmp_path / "node" / "identity").mkdir(parents=True)
    (tmp_path / "node" / "identity" / "node.pem").touch()
    told = answered("", "", "", "", "", "", "", "")
    assert "(Enter: this machine's own stays)" in told
    assert set(written(file)) == {"temp_max", "catalogue"}


def test_hours_and_address_can_be_taken_back(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(f'schedule = "22:00-08:00"\npayout_address = "{ADDRESS}"\n{BEFORE}')
    answered(LINE, "", "", "always", "none", "", "")
    assert (written(file)["schedule"], written(file)["payout_address"]) == ("", "")


@pytest.mark.parametrize("lines", [[], [LINE], [LINE, "", "", "", "", ""], [LINE, "", "", "", "", "", "no"]])
def test_who_stops_answering_or_says_no_at_the_end_has_nothing_written(file: Path, lines: list[str]) -> None:
    with pytest.raises(NotWritten, match="nothing is written"):
        answered(*lines)
    assert not file.exists()
    assert not file.parent.exists()


def test_gpus_that_cannot_be_read_are_told_and_a_model_can_be_named_all_the_same(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHRK_VISIBLE_DEVICES", "7")
    told = answered(LINE, "", "", "", "", "", "none", "org/own", "")
    assert "What fits here is not known: " in told
    assert "a node without a model has nothing to serve" in told
    assert written(file)["catalogue"] == {"own": {"source": "org/own"}}


def test_a_running_agent_is_told_of(file: Path, agent: PlayedAgent) -> None:
    told = answered(LINE, "", "", "", "", "", "")
    assert "The agent runs; after a restart only: " in told
    assert told.endswith("Next: shrk stop, then shrk start\n")


def test_a_running_agent_takes_in_at_once_what_it_can(file: Path, agent: PlayedAgent) -> None:
    answered(LINE, "", "", "", "", "", "")
    told = answered("", "", "", "66", "", "", "", "")
    assert agent.asked == ["reload"]
    assert told.endswith("The agent, which runs, has taken it in.\n")


def test_variables_that_win_over_the_file_are_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_TEMP_MAX", "60")
    assert "SHRK_TEMP_MAX is set in this shell and wins over the file's temp_max" in answered(
        LINE, "", "68", "", "", "", ""
    )
    assert written(file)["temp_max"] == 68


def test_unattended_it_takes_options_and_proposals_and_asks_nothing(file: Path) -> None:
    status, told, error = setup(
        *("--yes", "--controller", "tcp://a:9100", "--join-token", TOKEN, "--temp-max", "66", "--schedule"),
        *("22:00-08:00", "--name", "rig", "--payout-address", ADDRESS, "--model", "qwen3-8b", "--model", "org/own"),
    )
    assert (status, error) == (Exit.OK, "")
    assert list(written(file)["catalogue"]) == ["qwen3-8b", "own"]
    assert written(file)["temp_max"] == 66
    assert "Next: shrk start" in told
    assert TOKEN not in told


def test_unattended_the_token_may_come_from_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_JOIN_TOKEN", TOKEN)
    assert setup("--yes", "--controller", "tcp://a:9100")[0] == Exit.OK
    assert written(file)["join_token"] == TOKEN
    assert list(written(file)["catalogue"]) == ["gpt-oss-20b"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--controller: it is missing: this machine is not a node yet; "),
        (["--controller", "tcp://a:9100"], "--join-token: it is missing"),
        (["--controller", LINE.replace("10.0.0.1", "HOST")], "--controller: it does not tell where the coordinator is"),
        (["--controller", LINE, "--temp-max", "20"], "--temp-max: Input should be greater than or equal to 40, not 20"),
        (["--controller", LINE, "--schedule", "night"], "--schedule: "),
        (["--controller", LINE, "--model", "qwen"], "--model: 'qwen' is no number"),
        (["--controller", LINE, "--model", "a/x,b/x"], "--model: b/x and a/x would both be called x"),
        (["--controller", LINE, "--model", "a/x", "--model", "b/x"], "--model: b/x and a/x would both"),
    ],
)
def test_unattended_what_is_wrong_or_missing_ends_it_with_five(file: Path, words: list[str], told: str) -> None:
    status, _, error = setup("--yes", *words)
    assert status == Exit.CONFIG_INVALID
    assert error.startswith(f"shrk: {told}")
    assert not file.exists()


def test_away_from_a_terminal_it_names_the_options(file: Path) -> None:
    status, _, error = setup()
    assert status == Exit.USAGE
    assert "Say --yes, and what it would ask: --controller, --join-token, --name, --temp-max, --schedule" in error


def test_a_file_that_is_no_toml_is_told_before_anything_is_asked(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("temp_max = \n")
    status, told, error = setup("--yes")
    assert (status, told) == (Exit.CONFIG_INVALID, "")
    assert "is not valid TOML" in error


def test_what_is_wrong_elsewhere_in_the_file_is_told_and_it_stays_as_it_was(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("drain_seconds = -1\n")
    status, _, error = setup("--yes", "--controller", LINE, "--model", "org/own")
    assert status == Exit.CONFIG_INVALID
    assert "drain_seconds" in error
    assert file.read_text() == "drain_seconds = -1\n"


def test_a_file_that_cannot_be_written_is_told_with_what_to_do(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where not even root can make one; anybody else is told before the first question.
    monkeypatch.setenv("SHRK_CONFIG", "/proc/shrk-none/config.toml")
    status, _, error = setup("--yes", "--controller", LINE)
    assert status == Exit.ERROR
    assert "/proc/shrk-none" in error
    assert "try it with sudo" in error


def test_at_a_terminal_it_asks_and_writes(file: Path) -> None:
    with at_a_terminal(["setup"], os.environ) as terminal:
        terminal.answer("Coordinator, or the join line: ", LINE)
        terminal.answer("name in lists", "rig-1")
        terminal.answer("°C [70]: ", "")
        terminal.answer("Hours", "22:00-08:00")
        terminal.answer("Payout address", "")
        terminal.answer("Models to serve", "2")
        terminal.answer("Write it? [yes]: ", "")
        assert terminal.end() == 0, terminal.shown
    assert written(file)["name"] == "rig-1"
    assert list(written(file)["catalogue"]) == ["qwen3-14b"]


def test_ctrl_c_at_any_question_leaves_the_file_as_it_was(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(BEFORE)
    with at_a_terminal(["setup"], os.environ) as terminal:
        terminal.answer("Coordinator, or the join line: ", LINE)
        terminal.answer("name in lists", "rig-1")
        terminal.wait_for("°C [65]: ")
        assert terminal.interrupt() == 130, terminal.shown
    assert "Nothing is written." in terminal.shown
    assert file.read_text() == BEFORE
