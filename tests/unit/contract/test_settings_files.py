"""Settings files: which are read, which of them wins, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from shrk_contract.settings_files import (
    DEPTH_MAX,
    DROP_INS_MAX,
    FILE_BYTES_MAX,
    Location,
    SettingsError,
    SettingsForbidden,
    read_files,
)
from support.somebody_else import as_somebody_else, closed


def at(folder: Path, *, named: bool = False) -> Location:
    return Location("the node agent", "SHRK_CONFIG", folder / "config.toml", named, "conf.d")


def write(folder: Path, **texts: str) -> None:
    (folder / "conf.d").mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / ("config.toml" if name == "main" else f"conf.d/{name}.toml")).write_text(text)


def test_a_later_drop_in_wins_over_an_earlier_one_and_the_main_file_over_all(tmp_path: Path) -> None:
    write(tmp_path, main="\na = 1\n", b20="a = 20\nb = 20\n", b10="a = 10\nb = 10\nc = 10\n")
    files = read_files(at(tmp_path))
    assert files.values == {"a": 1, "b": 20, "c": 10}
    assert files.places == {
        ("a",): f"{tmp_path}/config.toml:2",
        ("b",): f"{tmp_path}/conf.d/b20.toml:2",
        ("c",): f"{tmp_path}/conf.d/b10.toml:3",
    }
    assert [path.name for path in files.read] == ["b10.toml", "b20.toml", "config.toml"]


def test_tables_of_several_files_grow_together(tmp_path: Path) -> None:
    write(tmp_path, main="[sim]\nx = 1\n", more="[sim]\nx = 2\ny = 3\n[catalogue.m]\nz = 4\n")
    assert read_files(at(tmp_path)).values == {"sim": {"x": 1, "y": 3}, "catalogue": {"m": {"z": 4}}}


def test_a_missing_key_is_placed_at_the_table_that_it_is_missing_from(tmp_path: Path) -> None:
    write(tmp_path, main="\n\n[catalogue.m]\n")
    assert read_files(at(tmp_path)).place(("catalogue", "m", "source")) == f"{tmp_path}/config.toml:3"
    assert read_files(at(tmp_path)).place(("name",)) is None


def test_what_is_hidden_or_no_toml_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, **{".swap": "nonsense"})
    (tmp_path / "conf.d" / "a.toml~").write_text("nonsense")
    assert read_files(at(tmp_path)).read == ()


def test_without_any_file_there_are_no_values_unless_one_was_named(tmp_path: Path) -> None:
    assert read_files(at(tmp_path)).values == {}
    with pytest.raises(SettingsError, match=r"config.toml cannot be read: No such file.*unset SHRK_CONFIG"):
        read_files(at(tmp_path, named=True))


def test_the_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, main="a = ", one="b =", two="c = 1")
    (tmp_path / "conf.d" / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(SettingsError) as refused:
        read_files(at(tmp_path))
    assert [problem.split(" is not valid TOML")[0].rpartition("/")[2] for problem in refused.value.problems] == [
        "latin.toml",
        "one.toml",
        "config.toml",
    ]


def test_a_file_or_a_folder_that_was_meant_otherwise_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, main="#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(SettingsError, match=f"larger than {FILE_BYTES_MAX} bytes: is SHRK_CONFIG right"):
        read_files(at(tmp_path))
    write(tmp_path, main="", **{f"d{number}": "" for number in range(DROP_INS_MAX + 1)})
    with pytest.raises(SettingsError, match=rf"conf\.d has {DROP_INS_MAX + 1} files, more than {DROP_INS_MAX}"):
        read_files(at(tmp_path))


def test_a_change_can_be_tried_before_it_is_written(tmp_path: Path) -> None:
    write(tmp_path, main="a = 1", one="b = 1")
    files = read_files(at(tmp_path), instead="\na = 2")
    assert files.values == {"a": 2, "b": 1}
    assert files.places["a",] == f"{tmp_path}/config.toml:2"


def test_a_file_that_may_not_be_read_is_told_to_be_another_users_and_not_to_be_missing(tmp_path: Path) -> None:
    file = closed(tmp_path / "config.toml", "temp_max = 60")
    for named in (False, True):
        with as_somebody_else(), pytest.raises(SettingsForbidden) as refused:
            read_files(at(tmp_path, named=named))
        assert refused.value.exit_code == 6
        assert str(refused.value) == (
            "the settings of the node agent may not be read:\n"
            f"  {file} belongs to another user, and may not be read: run it with sudo"
        )


def test_a_folder_that_may_not_be_entered_or_listed_is_told_in_the_same_words(tmp_path: Path) -> None:
    for mode in (0, 0o300):
        (tmp_path / "etc").mkdir(exist_ok=True)
        write(tmp_path / "etc", main="")
        (tmp_path / "etc" / ("conf.d" if mode else "")).chmod(mode)
        with as_somebody_else(), pytest.raises(SettingsForbidden, match="another user"):
            read_files(at(tmp_path / "etc"))
        (tmp_path / "etc").chmod(0o700)


def test_beside_a_real_fault_what_may_not_be_read_is_one_problem_more(tmp_path: Path) -> None:
    write(tmp_path, one="b =")
    closed(tmp_path / "config.toml", "")
    with as_somebody_else(), pytest.raises(SettingsError) as refused:
        read_files(at(tmp_path))
    assert (refused.value.exit_code, len(refused.value.problems)) == (5, 2)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000 + "]" * 5000, "a." * DEPTH_MAX + "b = 1", "a = " + "{b = " * 900])
def test_what_is_nested_without_end_is_a_problem_with_the_files_name(tmp_path: Path, text: str) -> None:
    write(tmp_path, main=text)
    with pytest.raises(SettingsError, match=r"config.toml has lists or tables in each other, too deep to be read"):
        read_files(at(tmp_path))
