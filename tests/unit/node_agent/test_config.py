"""An owner's settings as a document: origins, and changes that keep the file's comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_contract.settings import SettingsError, load
from shrk_node_agent import config_command
from shrk_node_agent.config import ConfigUnchanged, Origin, check, describe, set_value, set_values, value_of
from shrk_node_agent.default_file import commented_file, documentation
from shrk_node_agent.reload import Changes
from shrk_node_agent.settings import AgentSettings, CatalogueEntry
from shrk_node_agent.time_zone import in_force, zone
from support.asked_agent import PlayedAgent, an_agent
from support.somebody_else import as_somebody_else
from support.status_documents import healthy

TEXT = """\
# Ours.
temp_max = 70  # summer
# schedule = "22:00-08:00"

[catalogue.qwen]  # the large one
source = "q"
slots = 4
"""


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The settings file, which SHRK_CONFIG names."""
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    monkeypatch.setenv("SHRK_CONFIG", str(path))
    # No agent of this machine is to hear of it.
    monkeypatch.setenv("SHRK_STATE_DIR", str(tmp_path))
    return path


def origins(settings: AgentSettings) -> dict[str, Origin]:
    return {origin.key: origin for origin in describe(settings)}


def test_each_value_is_told_with_flag_variable_line_or_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_WHEN", "idle")
    monkeypatch.setenv("SHRK_SCHEDULE", "")
    (file.parent / "conf.d").mkdir()
    (file.parent / "conf.d" / "zone.toml").write_text('time_zone = "UTC"\n')
    told = origins(load(AgentSettings, name="rig"))
    assert told["name"] == Origin("name", "rig", "--name")
    assert told["when"] == Origin("when", "idle", "SHRK_WHEN")
    assert told["schedule"] == Origin("schedule", "", "default")
    assert told["temp_max"] == Origin("temp_max", 70, f"{file}:2")
    assert told["time_zone"] == Origin("time_zone", "UTC", f"{file.parent}/conf.d/zone.toml:1")
    assert told["catalogue.qwen.slots"] == Origin("catalogue.qwen.slots", 4, f"{file}:7")
    assert told["catalogue.qwen.task"] == Origin("catalogue.qwen.task", "generate", "default")


def test_an_empty_time_zone_is_told_with_the_one_in_force(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = f"in force: {in_force('', zone(''))}"
    assert origins(load(AgentSettings))["time_zone"] == Origin("time_zone", "", "default", told)
    shown = CliRunner().invoke(config_command.config, ["show"]).stdout
    assert re.search(rf'^time_zone = "" +# {told}$', shown, re.MULTILINE)
    assert re.search(r"^temp_max = 70$", shown, re.MULTILINE)
    with_origin = CliRunner().invoke(config_command.config, ["show", "--origin"]).stdout
    assert re.search(rf'^time_zone = "" +# default, {told}$', with_origin, re.MULTILINE)
    document = json.loads(CliRunner().invoke(config_command.config, ["show", "--json"]).stdout)
    assert {"key": "time_zone", "value": "", "source": "default", "note": told} in document["settings"]
    monkeypatch.setenv("SHRK_TIME_ZONE", "Europe/Berlin")
    assert origins(load(AgentSettings))["time_zone"].note == ""


def test_every_setting_is_told(file: Path) -> None:
    told = {key.partition(".")[0] for key in origins(load(AgentSettings))}
    assert told == set(AgentSettings.model_fields)


def test_a_secret_is_masked_wherever_it_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_JOIN_TOKEN", "shrk_join_secret")
    settings = load(AgentSettings)
    assert "shrk_join_secret" not in repr(describe(settings)) + repr(value_of(settings, "join_token"))
    assert set_value("join_token", "shrk_join_other").after == "********"
    assert file.stat().st_mode & 0o007 == 0, "nobody else may read it now"


def test_one_setting_or_all_of_a_table_can_be_asked_for(file: Path) -> None:
    settings = load(AgentSettings)
    assert value_of(settings, "temp_max") == 70
    assert value_of(settings, "models") == []
    assert value_of(settings, "catalogue") == {
        "qwen.source": "q",
        "qwen.task": "generate",
        "qwen.slots": 4,
        "qwen.context_tokens": None,
        "qwen.memory_gb": None,
        "qwen.revision": None,
        "qwen.weights_gb": None,
        "qwen.parameters_billion": None,
    }


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("tempmax", "tempmax is not a setting; did you mean temp_max?"),
        ("catalogue.qwen.slot", "catalogue.qwen.slot is not a setting; did you mean slots?"),
        ("catalogue.qwn.slots", "catalogue.qwn.slots is not set: there is no 'qwn'; did you mean qwen?"),
        ("temp_max.celsius", "temp_max.celsius is not a setting"),
        ("", "'' is not a key"),
        ("a b", "'a b' is not a key"),
        ("temp_max = 1\nx", "is not a key"),
    ],
)
def test_a_name_that_is_no_setting_is_refused_with_the_nearest(file: Path, key: str, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        value_of(load(AgentSettings), key)
    assert told in str(refused.value)


def test_a_change_touches_nothing_but_its_value(file: Path) -> None:
    written = set_value("temp_max", "68")
    assert file.read_text() == TEXT.replace("70", "68")
    assert (written.before, written.after, written.changes.applied) == (70, 68, ("temp_max",))
    set_value("catalogue.qwen.slots", "8")
    assert file.read_text() == TEXT.replace("70", "68").replace("4", "8")


def test_a_key_that_stands_there_commented_out_is_set_in_its_place(file: Path) -> None:
    set_value("schedule", "mon-fri 22:00-06:00")
    assert file.read_text() == TEXT.replace('# schedule = "22:00-08:00"', 'schedule = "mon-fri 22:00-06:00"')


def test_a_new_key_is_set_above_the_tables(file: Path) -> None:
    written = set_value("visible_devices", "0, 2")
    assert load(AgentSettings).visible_devices == ("0", "2")
    assert written.changes.needs_restart == ("visible_devices",)
    assert "# the large one" in file.read_text()
    set_value("catalogue.second.source", "s")
    assert list(load(AgentSettings).catalogue) == ["qwen", "second"]


def test_a_key_that_is_taken_out_has_its_default_again(file: Path) -> None:
    set_value("catalogue.qwen.slots", None)
    assert load(AgentSettings).catalogue["qwen"].slots == CatalogueEntry.model_fields["slots"].default
    set_value("temp_max", None)
    assert "temp_max" not in file.read_text()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("temp_max", "30", "temp_max: .* not 30; allowed is 40 to 95"),
        ("temp_max", "hot", "temp_max: Input should be a valid number"),
        ("temp_max", "nan", "temp_max: "),
        ("models", "qwn", "did you mean qwen"),
        ("schedule", "22:00", "schedule: "),
        ("catalogue.qwen", "x", "is a table; set one of its keys, such as catalogue.qwen.source"),
        ("catalogue.other.slots", "3", "catalogue.other.source: Field required"),
        ("catalogue.qwen.source", "", "catalogue.qwen.source: "),
        ("tempmax", "60", "did you mean temp_max"),
    ],
)
def test_a_change_that_would_not_be_valid_leaves_the_file_as_it_is(file: Path, key: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        set_value(key, value)
    assert file.read_text() == TEXT
    assert [path.name for path in file.parent.iterdir()] == ["config.toml"]


def test_a_variable_does_not_hide_that_a_change_is_wrong(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_TEMP_MAX", "60")
    with pytest.raises(SettingsError, match="not 300"):
        set_value("temp_max", "300")
    assert set_value("temp_max", "65").outdone_by == "SHRK_TEMP_MAX"
    file.write_text(TEXT.replace("70", "300"))
    with pytest.raises(SettingsError, match=r"config.toml:2: temp_max: .* not 300"):
        check()


def test_a_change_can_mend_a_file_that_is_wrong(file: Path) -> None:
    file.write_text(TEXT.replace("70", "700"))
    assert set_value("temp_max", "71").after == 71


def test_a_file_that_is_no_toml_is_not_changed(file: Path) -> None:
    file.write_text("temp_max = \n")
    with pytest.raises(SettingsError, match=r"config.toml is not valid TOML: .*line 1"):
        set_value("temp_max", "71")
    assert file.read_text() == "temp_max = \n"


def test_where_nothing_can_be_written_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigUnchanged, match=r"gone/config.toml cannot be written.*No such file.*is it the right file"
    ):
        set_value("temp_max", "71", tmp_path / "gone" / "config.toml")


def test_the_file_keeps_its_mode_and_a_link_stays_a_link(file: Path) -> None:
    real = file.rename(file.with_name("real.toml"))
    file.symlink_to(real)
    real.chmod(0o640)
    set_value("temp_max", "66")
    assert file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert "66" in real.read_text()


# --- the file of the installer ---------------------------------------------------------------------------


def test_the_default_file_has_every_setting_with_what_it_is_for(file: Path) -> None:
    text = commented_file()
    for table in (AgentSettings, CatalogueEntry):
        for name, lines in documentation(table).items():
            assert all(f"# {line}" in text for line in lines), name
            assert lines or name == "task", f"{name} says what it is for"
            assert name in ("catalogue", "sim") or re.search(rf"^# {name} = ", text, re.MULTILINE), name


def test_what_the_installer_chose_is_set_and_can_be_used(file: Path) -> None:
    chosen = {"temp_max": 68, "engine": "sim", "payout_address": "", "schedule": "22:00-08:00", "name": 'a "rig"'}
    file.write_text(commented_file(chosen, {"a.b": {"source": "x", "slots": 3}}))
    settings = check()
    assert (settings.temp_max, settings.name, settings.catalogue["a.b"].slots) == (68, 'a "rig"', 3)
    with pytest.raises(ValueError, match=r"tempmax, catalogue\.m\.sorce: no such setting"):
        commented_file({"tempmax": 68}, {"m": {"sorce": "x"}})


def test_every_line_that_is_commented_out_can_be_used_as_it_stands(file: Path) -> None:
    text = re.sub(r"^# (\w+ = |\[)", r"\1", commented_file(), flags=re.MULTILINE)
    file.write_text(text)
    check()


# --- the commands ----------------------------------------------------------------------------------------


def test_the_commands_answer_with_one_document_for_programs(file: Path) -> None:
    run = CliRunner().invoke
    shown = json.loads(run(config_command.config, ["show", "--json"]).stdout)
    assert (shown["schema"], shown["files"]) == (1, [str(file)])
    assert {"key": "temp_max", "value": 70.0, "source": f"{file}:2"} in shown["settings"]
    assert json.loads(run(config_command.get, ["temp_max", "--json"]).stdout)["value"] == 70
    assert json.loads(run(config_command.set_, ["temp_max", "68", "--json"]).stdout) == {
        "schema": 1,
        "key": "temp_max",
        "file": str(file),
        "before": 70,
        "after": 68,
        "applied_by_reload": ["temp_max"],
        "needs_restart": [],
        "outdone_by": None,
        "agent": {"running": False, "applied": [], "needs_restart": []},
    }


def test_the_commands_answer_people(file: Path) -> None:
    run = CliRunner().invoke
    assert run(config_command.get, ["temp_max"]).stdout == "70\n"
    assert f"temp_max = 70  # {file}:2\n" in re.sub(
        " +#", "  #", run(config_command.config, ["show", "--origin"]).stdout
    )
    said = run(config_command.set_, ["engine", "sim"]).stdout
    assert said.endswith("No agent runs here: it holds from the next start on (shrk start).\n")
    assert run(config_command.config, ["check"]).stdout == f"valid: {file}\n"
    assert run(config_command.set_, ["engine", "--default"]).exit_code == 0


def test_settings_that_are_wrong_end_a_command_with_5(file: Path) -> None:
    run = CliRunner().invoke
    for command, arguments in ((config_command.get, ["tempmax"]), (config_command.set_, ["temp_max", "30"])):
        result = run(command, arguments)
        assert (result.exit_code, result.stderr.startswith("shrk: the settings")) == (5, True)
    other = file.with_name("other.toml")
    other.write_text(TEXT.replace("temp_max", "temp_mx") + "slot = 3\n")
    result = run(config_command.config, ["check", str(other), "--json"])
    assert result.exit_code == 5
    assert [problem.partition(": ")[0] for problem in json.loads(result.stdout)["problems"]] == [
        f"{other}:8",
        f"{other}:2",
    ]
    assert (
        "cannot be read: No such file or directory; name a file"
        in run(config_command.config, ["check", str(file.with_name("gone.toml"))]).stderr
    )
    assert run(config_command.set_, ["temp_max"]).exit_code == 2


def test_several_settings_are_written_in_one_step_and_nothing_else_is_touched(file: Path) -> None:
    written = set_values({"temp_max": "68", "catalogue.new.source": "n", "catalogue.new.slots": "2"})
    assert file.read_text() == TEXT.replace("70", "68") + '\n[catalogue.new]\nsource = "n"\nslots = 2\n'
    assert (written.changes.applied, written.changes.needs_restart) == (("temp_max",), ("catalogue",))
    assert written.outdone_by == {}


def test_of_several_settings_one_that_is_wrong_keeps_all_of_them_out(file: Path) -> None:
    with pytest.raises(SettingsError, match="had this been written"):
        set_values({"temp_max": "68", "schedule": "at night"})
    assert file.read_text() == TEXT


def test_variables_that_win_over_what_is_written_are_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_TEMP_MAX", "60")
    monkeypatch.setenv("SHRK_WHEN", "idle")
    assert set_values({"temp_max": "68", "schedule": ""}).outdone_by == {"temp_max": "SHRK_TEMP_MAX"}
    assert "temp_max = 68" in file.read_text()


def test_a_file_that_was_not_there_begins_with_what_it_is_given(file: Path) -> None:
    file.unlink()
    written = set_values({"temp_max": "68", "catalogue.m.source": "m"}, blank="# Ours.\n# temp_max = 70\n")
    assert file.read_text() == '# Ours.\ntemp_max = 68\n\n[catalogue.m]\nsource = "m"\n'
    assert written.changes.needs_restart == ("temp_max", "catalogue"), "no agent runs without settings"


@pytest.mark.parametrize(
    ("command", "words"),
    [("config", ["show"]), ("config", ["check"]), ("get", ["temp_max"]), ("set_", ["temp_max", "60"])],
)
def test_settings_that_may_not_be_read_end_a_command_with_6_and_sudo(
    file: Path, command: str, words: list[str]
) -> None:
    file.chmod(0)
    with as_somebody_else():
        result = CliRunner().invoke(getattr(config_command, command), words)
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        "shrk: the settings of the node agent may not be read:\n"
        f"  {file} belongs to another user, and may not be read: run it with sudo\n"
    )


# --- and what the running agent makes of a change --------------------------------------------------------


@pytest.fixture
def agent(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedAgent]:
    """One that runs with the file."""
    with an_agent(healthy()) as played:
        monkeypatch.setenv("SHRK_STATE_DIR", str(played.folder))
        yield played


def test_a_change_is_taken_in_by_the_agent_that_runs(agent: PlayedAgent) -> None:
    agent.reloaded = Changes(("temp_max",))
    changed = CliRunner().invoke(config_command.set_, ["temp_max", "60"])
    assert (agent.asked, changed.exit_code, changed.stderr) == (["reload"], 0, "")
    assert changed.stdout.splitlines()[1:] == ["The running agent has taken it in: temp_max."]


def test_what_waits_for_a_restart_is_told_with_the_commands_also_what_waits_since_earlier(agent: PlayedAgent) -> None:
    agent.reloaded = Changes((), ("engine", "name"))
    changed = CliRunner().invoke(config_command.set_, ["name", "rig"]).stdout
    restart = "After a restart only: engine, name. When it suits you: shrk stop, then shrk start."
    assert changed.splitlines()[1:] == [restart]
    agent.reloaded = Changes(("temp_max",), ("engine", "name"))
    taken_in = CliRunner().invoke(config_command.set_, ["temp_max", "60"]).stdout
    assert taken_in.splitlines()[1:] == ["The running agent has taken it in: temp_max.", restart]
    document = json.loads(CliRunner().invoke(config_command.set_, ["temp_max", "61", "--json"]).stdout)
    assert document["agent"] == {"running": True, "applied": ["temp_max"], "needs_restart": ["engine", "name"]}


def test_what_changes_nothing_says_so(agent: PlayedAgent) -> None:
    changed = CliRunner().invoke(config_command.set_, ["temp_max", "70"]).stdout
    assert changed.splitlines()[1:] == ["Nothing changes for the running agent."]


def test_an_agent_that_refuses_the_file_is_quoted_and_ends_it_with_5(file: Path, agent: PlayedAgent) -> None:
    agent.reloaded = SettingsError("the node agent", ("SHRK_WHEN: Input should be 'always' or 'idle'",))
    changed = CliRunner().invoke(config_command.set_, ["temp_max", "60"])
    assert changed.exit_code == 5
    assert changed.stderr == (
        "shrk: it is written, but the running agent refuses it, and goes on with what it had: the settings of the node "
        "agent are not valid:\n  SHRK_WHEN: Input should be 'always' or 'idle'\n"
    )
    assert "temp_max = 60" in file.read_text()


def test_no_reload_leaves_the_agent_alone_and_says_what_it_takes(agent: PlayedAgent) -> None:
    changed = CliRunner().invoke(config_command.set_, ["temp_max", "60", "--no-reload"])
    assert (agent.asked, changed.exit_code) == ([], 0)
    assert "at its next reload" in changed.stdout


def test_the_agent_that_is_asked_is_the_one_that_ran_before_its_folder_was_changed(
    file: Path, agent: PlayedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHRK_STATE_DIR")
    file.write_text(f'state_dir = "{agent.folder}"\n{TEXT}')
    agent.reloaded = Changes((), ("state_dir",))
    changed = CliRunner().invoke(config_command.set_, ["state_dir", str(file.parent / "other")])
    assert (agent.asked, changed.exit_code) == (["reload"], 0)
    assert "After a restart only: state_dir." in changed.stdout
