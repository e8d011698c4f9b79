"""What is said of settings that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import SettingsConfigDict

from shrk_contract.settings import ServiceSettings, SettingsError, load
from shrk_contract.settings_problems import SettingInvalid, allowed, did_you_mean, field_at


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    #: Some more.
    weight: float = Field(default=1, gt=0, le=5)


class Example(ServiceSettings):
    """Of a service that is none."""

    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")
    whose: ClassVar[str] = "the example"
    file_variable: ClassVar[str] = "EXAMPLE_CONFIG"
    file_default: ClassVar[Path] = Path("/nowhere/example.toml")

    #: In all.
    most: int = Field(default=3, ge=0)
    #: By name.
    things: dict[str, Inner] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_more_than_most(self) -> Example:
        for name, thing in self.things.items():
            if thing.weight > self.most:
                raise SettingInvalid(("things", name, "weight"), f"it is more than most = {self.most}")
        return self


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "example.toml"
    monkeypatch.setenv("EXAMPLE_CONFIG", str(path))
    return path


def problems(**flags: object) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        load(Example, **flags)
    return refused.value.problems


def test_a_check_over_several_settings_points_at_the_one_that_is_wrong(file: Path) -> None:
    file.write_text("most = 2\n[things.a]\nweight = 1\n[things.b]\nweight = 4\n")
    assert problems() == (f"{file}:5: things.b.weight: it is more than most = 2",)


def test_the_same_from_the_command_line_is_called_by_its_option(file: Path) -> None:
    file.write_text("most = 2\n")
    assert problems(things={"a": {"weight": 3}}) == ("--things.a.weight: it is more than most = 2",)


def test_ranges_of_all_kinds_are_told_in_words(file: Path) -> None:
    file.write_text("most = -1\n[things.a]\nweight = 0\n[things.b]\nweight = 6\n")
    assert [problem.partition("not ")[2] for problem in problems()] == [
        "-1; allowed is 0 or more",
        "0; allowed is more than 0 to 5",
        "6; allowed is more than 0 to 5",
    ]


def test_a_setting_without_a_range_has_none() -> None:
    things = field_at(Example, ("things",))
    assert things is not None
    assert allowed(things) == ""


def test_an_unknown_key_deep_down_is_placed_and_compared_with_its_neighbours(file: Path) -> None:
    file.write_text("\n[things.a]\n\nwait = 1\n")
    assert problems() == (f"{file}:4: things.a.wait is not a setting; did you mean weight?",)


def test_the_nearest_name_is_told_or_else_all() -> None:
    assert did_you_mean("thing", ["things", "most"]) == "; did you mean things?"
    assert did_you_mean("xyz", ["things", "most"]) == "; known are: most, things"


def test_a_variable_counts_however_it_is_written_and_can_be_left_out_of_account(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("most = 2\n")
    monkeypatch.setenv("example_most", "9")
    settings = load(Example)
    assert (settings.most, settings.sources.of(("most",))) == (9, "example_most")
    settings = load(Example, ignoring=["most"])
    assert (settings.most, settings.sources.of(("most",))) == (2, f"{file}:1")
