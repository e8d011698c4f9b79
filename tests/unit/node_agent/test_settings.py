"""An owner's settings: which models are served, in which order, and what of them cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shrk_contract.settings import SettingsError, load
from shrk_node_agent.default_file import documentation
from shrk_node_agent.settings import AgentSettings
from shrk_node_agent.state.terms.occupancy import (
    BACK_SECONDS,
    BUSY_SHARE_IDLE_MIN,
    BUSY_SHARE_MIN,
    PROGRAM_BYTES_MIN,
)
from support.house import ROOT

Read = Callable[[str], AgentSettings]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Read:
    """Settings from a file of this text."""

    def read(text: str) -> AgentSettings:
        path = tmp_path / "config.toml"
        path.write_text(text)
        monkeypatch.setenv("SHRK_CONFIG", str(path))
        return load(AgentSettings)

    return read


def served(settings: AgentSettings) -> list[str]:
    return list(settings.served)


CATALOGUE = '[catalogue.zebra]\nsource = "z"\n[catalogue.ant]\nsource = "a"\n[catalogue.moose]\nsource = "m"\n'


def test_models_are_served_in_the_order_in_which_their_owner_wrote_them(read: Read) -> None:
    assert served(read(CATALOGUE)) == ["zebra", "ant", "moose"]
    chosen = read('models = ["moose", "zebra"]\n' + CATALOGUE)
    assert served(chosen) == ["moose", "zebra"]
    assert [spec.model for spec in chosen.specs()] == ["zebra", "ant", "moose"], "others may be chosen while it runs"


def test_hours_can_be_set_as_they_are_shown(read: Read) -> None:
    assert read('schedule = "always"\n' + CATALOGUE).schedule == ""


def test_where_memory_is_counted_a_model_without_a_size_is_named_with_what_to_write(read: Read) -> None:
    with pytest.raises(SettingsError) as refused:
        read('memory_gb = 24\n[catalogue.large]\nsource = "l"\nmemory_gb = 20\n[catalogue.other]\nsource = "o"\n')
    [problem] = refused.value.problems
    assert problem.endswith(
        "config.toml:5: catalogue.other.memory_gb: it is missing: memory_gb = 24 bounds all models together and this "
        "one would not count; say what it takes in GB, or take memory_gb out"
    )


def test_a_model_that_is_not_served_needs_no_size(read: Read) -> None:
    sized = '[catalogue.large]\nsource = "l"\nmemory_gb = 20\n[catalogue.other]\nsource = "o"\n'
    assert served(read('memory_gb = 24\nmodels = ["large"]\n' + sized)) == ["large"]


def test_the_settings_that_the_readme_shows_can_be_used(read: Read) -> None:
    [shown] = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert served(read(shown)) == ["qwen"]
    several = 'memory_gb = 24\nscale_to_zero = true\nmodels = ["qwen"]\n' + shown + "memory_gb = 18\n"
    assert served(read(several)) == ["qwen"]


def test_a_model_that_never_fits_is_named(read: Read) -> None:
    with pytest.raises(SettingsError, match=r"catalogue\.large\.memory_gb: 30 is more than memory_gb = 24"):
        read('memory_gb = 24\n[catalogue.large]\nsource = "l"\nmemory_gb = 30\n')


def test_a_revision_travels_to_the_engine_and_none_is_none(read: Read) -> None:
    specs = read('[catalogue.a]\nsource = "org/a"\nrevision = "v1.2"\n[catalogue.b]\nsource = "org/b"\n').specs()
    assert [spec.revision for spec in specs] == ["v1.2", None]


@pytest.mark.parametrize("revision", ["", "--evil", "a b", "x" * 201])
def test_a_revision_that_can_be_none_is_named(read: Read, revision: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(f'[catalogue.a]\nsource = "org/a"\nrevision = "{revision}"\n')
    assert "catalogue.a.revision" in refused.value.problems[0]


def test_a_folder_has_no_revisions(read: Read) -> None:
    with pytest.raises(SettingsError) as refused:
        read('[catalogue.a]\nsource = "/models/a"\nrevision = "main"\n')
    assert "/models/a is a folder of this machine and has none; take revision out" in refused.value.problems[0]


def test_the_size_of_a_model_can_be_told_for_the_fit(read: Read) -> None:
    entry = read('[catalogue.a]\nsource = "org/a"\nweights_gb = 16.1\nparameters_billion = 8\n').catalogue["a"]
    assert (entry.weights_gb, entry.parameters_billion) == (16.1, 8.0)


def refused(read: Read, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(text + CATALOGUE)
    [problem] = caught.value.problems
    return problem


def test_what_an_owner_does_not_say_has_the_defaults_of_the_manual(read: Read) -> None:
    settings = read(CATALOGUE)
    assert (settings.temp_max, settings.schedule, settings.time_zone, settings.when) == (70, "", "", "always")
    assert (settings.visible_devices, settings.payout_address, settings.gpu) == ((), "", "auto")


def test_the_five_variables_win_over_the_file(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_VISIBLE_DEVICES", "0,2")
    monkeypatch.setenv("SHRK_MODELS", "moose, ant")
    monkeypatch.setenv("SHRK_CONTROLLER", "tcp://10.0.0.1:9100")
    monkeypatch.setenv("SHRK_SCHEDULE", "22:00-08:00")
    monkeypatch.setenv("SHRK_TEMP_MAX", "68")
    settings = read('temp_max = 80\nmodels = ["zebra"]\nschedule = "01:00-02:00"\nvisible_devices = [5]\n' + CATALOGUE)
    assert settings.visible_devices == ("0", "2")
    assert served(settings) == ["moose", "ant"]
    assert settings.controller == "tcp://10.0.0.1:9100"
    assert (settings.schedule, settings.temp_max) == ("22:00-08:00", 68)


@pytest.mark.parametrize("cap", ["39", "39.9", "96", "95.1", "0", "-1", "inf", "nan"])
def test_an_impossible_cap_is_refused_with_file_line_and_range(read: Read, cap: str) -> None:
    problem = refused(read, f"\ntemp_max = {cap}\n")
    assert "config.toml:2: temp_max: " in problem
    assert problem.endswith("allowed is 40 to 95")


@pytest.mark.parametrize("cap", ["40", "95", "68.5"])
def test_the_caps_between_the_bounds_and_the_bounds_themselves_are_taken(read: Read, cap: str) -> None:
    assert read(f"temp_max = {cap}\n" + CATALOGUE).temp_max == float(cap)


def test_an_impossible_cap_from_elsewhere_is_refused_by_the_name_it_has_there(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHRK_TEMP_MAX", "30")
    assert refused(read, "temp_max = 70\n").startswith("SHRK_TEMP_MAX: ")
    with pytest.raises(SettingsError, match=r"--temp-max: .*allowed is 40 to 95"):
        load(AgentSettings, temp_max="300")


@pytest.mark.parametrize("hours", ["22:00", "25:00-08:00", "22:00-22:00", "noon"])
def test_a_malformed_window_is_refused_at_its_line(read: Read, hours: str) -> None:
    problem = refused(read, f'schedule = "{hours}"\n')
    assert "config.toml:1: schedule: " in problem
    assert "such as 22:00-08:00" in problem


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin"),
        ("Berlin", "did you mean Europe/Berlin?"),
        ("europe/berlin", "did you mean Europe/Berlin"),
        ("../zone", "write one such as Europe/Berlin"),
        ("Europe", "is not a time zone"),
    ],
)
def test_an_unknown_time_zone_is_refused_with_the_nearest(read: Read, zone: str, told: str) -> None:
    problem = refused(read, f'time_zone = "{zone}"\n')
    assert "config.toml:1: time_zone: " in problem
    assert told in problem


def test_an_unknown_model_is_refused_with_the_nearest(read: Read) -> None:
    assert refused(read, 'models = ["zebra",\n "mouse"]\n').endswith(
        "config.toml:1: models: 'mouse' is not in the catalogue, which holds ant, moose, zebra; did you mean moose?"
    )


@pytest.mark.parametrize("controller", ["tcp://10.0.0.1:9100,tcp://10.0.0.2:9100", "pool:tcp://10.0.0.1:9100"])
def test_a_pool_is_refused_as_not_available_yet(read: Read, controller: str) -> None:
    assert "a pool, several hosts as one node, which is not available yet; name one" in refused(
        read, f'controller = "{controller}"\n'
    )


@pytest.mark.parametrize(
    ("written", "read_as"),
    [("0", ("0",)), ('"0,GPU-8a3f2c1d"', ("0", "GPU-8a3f2c1d")), ('[2, "MIG-4f/1/0"]', ("2", "MIG-4f/1/0"))],
)
def test_gpus_are_named_by_index_or_uuid(read: Read, written: str, read_as: tuple[str, ...]) -> None:
    assert read(f"visible_devices = {written}\n" + CATALOGUE).visible_devices == read_as


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("[-1]", "'-1' is neither an index from 0 on nor a UUID"),
        ('"all"', "'all' is neither"),
        ("[0, 1, 0]", "0 is named twice"),
        ("[64]", "64 is no GPU's index: allowed is 0 to 63"),
        ("true", "valid tuple"),
    ],
)
def test_what_names_no_gpu_is_refused(read: Read, written: str, told: str) -> None:
    problem = refused(read, f"visible_devices = {written}\n")
    assert "config.toml:1: visible_devices: " in problem
    assert told in problem


@pytest.mark.parametrize(("key", "written", "nearest"), [("when", "idel", "idle"), ("gpu", "nvm", "nvml")])
def test_a_word_that_is_no_choice_is_refused_with_all_and_the_nearest(
    read: Read, key: str, written: str, nearest: str
) -> None:
    assert refused(read, f'{key} = "{written}"\n').endswith(f"not '{written}'; did you mean {nearest}?")


def test_a_scripted_gpu_needs_its_script(read: Read) -> None:
    assert 'config.toml:1: gpu: "scripted" plays a file that scripted_gpu names' in refused(read, 'gpu = "scripted"\n')


def test_a_payout_address_with_a_wrong_checksum_is_refused_with_the_right_one(read: Read) -> None:
    right = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    assert read(f'payout_address = "{right}"\n' + CATALOGUE).payout_address == right
    problem = refused(read, f'payout_address = "{right.replace("A", "a", 1)}"\n')
    assert "config.toml:1: payout_address: " in problem
    assert right in problem


def test_a_key_of_a_drop_in_is_refused_with_the_name_of_its_file(read: Read, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10-heat.toml").write_text("\ntemp_maxx = 70\n")
    assert refused(read, "").endswith("conf.d/10-heat.toml:2: temp_maxx is not a setting; did you mean temp_max?")


def test_what_is_said_of_the_modes_is_what_they_do() -> None:
    said = " ".join(documentation(AgentSettings)["when"])
    assert (PROGRAM_BYTES_MIN, BACK_SECONDS, BUSY_SHARE_MIN, BUSY_SHARE_IDLE_MIN) == (512 << 20, 60, 0.5, 0.1)
    for words in ("512 MiB", "until a minute after", "half of its time (always)", "a tenth of it (idle)"):
        assert words in said
