"""What settings were before we touched them, whoever else touches them meanwhile, and whatever becomes of us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shrk_node_agent.sensors.set_values import NotKept, SetValues

LIMIT = ("GPU-0", "power limit")


def test_what_we_set_twice_goes_back_to_what_it_was_before_the_first_time() -> None:
    values = SetValues(tolerance=1)
    values.setting(LIMIT, current=450, wanted=300)
    values.left(LIMIT, 300)
    assert values.original(LIMIT, current=300) == 450
    values.setting(LIMIT, current=300, wanted=250)
    values.left(LIMIT, 250)
    assert values.to_restore(LIMIT, current=250) == 450


def test_what_the_owner_has_set_since_stays() -> None:
    values = SetValues(tolerance=1)
    values.setting(LIMIT, current=450, wanted=300)
    values.left(LIMIT, 300)
    assert values.to_restore(LIMIT, current=320) is None
    assert values.original(LIMIT, current=320) == 320
    values.setting(LIMIT, current=320, wanted=250)
    assert values.to_restore(LIMIT, current=250) == 320


def test_until_it_is_read_back_both_what_it_was_and_what_was_wanted_may_be_ours() -> None:
    values = SetValues(tolerance=1)
    values.setting(LIMIT, current=450, wanted=300)
    values.left(LIMIT, 300)
    values.setting(LIMIT, current=300, wanted=250)
    assert values.to_restore(LIMIT, current=300) == 450
    assert values.to_restore(LIMIT, current=250) == 450


def test_a_value_that_the_driver_made_of_ours_is_ours_too() -> None:
    values = SetValues(tolerance=1)
    values.setting(LIMIT, current=450, wanted=300)
    values.left(LIMIT, 290)
    assert values.to_restore(LIMIT, current=290) == 450


def test_what_was_never_set_or_is_as_it_was_needs_nothing() -> None:
    values = SetValues(tolerance=1)
    assert not values.touched(LIMIT)
    assert values.to_restore(LIMIT, current=450) is None
    values.setting(LIMIT, current=450, wanted=300)
    values.left(LIMIT, 450)
    assert values.touched(LIMIT)
    assert values.to_restore(LIMIT, current=450.5) is None


def test_what_is_kept_in_a_file_outlives_us_until_it_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "gpu-settings.json"
    ours = SetValues(1, path)
    ours.setting(LIMIT, current=450, wanted=300)
    assert not ours.inherited(LIMIT)
    assert SetValues(1, path).to_restore(LIMIT, current=300) == 450
    ours.left(LIMIT, 290)
    later = SetValues(1, path)
    assert (later.inherited(LIMIT), later.to_restore(LIMIT, current=290)) == (True, 450)
    assert later.to_restore(LIMIT, current=310) is None
    later.setting(LIMIT, current=290, wanted=260)
    assert not later.inherited(LIMIT)
    last = SetValues(1, path)
    assert last.to_restore(LIMIT, current=260) == 450
    last.setting(("GPU-1", "power limit"), current=200, wanted=100)
    last.forget(LIMIT)
    assert [one["gpu"] for one in json.loads(path.read_text())["settings"]] == ["GPU-1"]
    last.forget(("GPU-1", "power limit"))
    assert not path.exists()
    last.forget(LIMIT)


@pytest.mark.parametrize("content", ["", "[]", '{"settings": [{}]}', '{"settings": [{"gpu": 1}]}'])
def test_a_file_that_holds_anything_else_is_refused_with_a_remedy_and_not_overwritten(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "gpu-settings.json"
    path.write_text(content)
    with pytest.raises(NotKept, match="delete it"):
        SetValues(1, path).setting(LIMIT, current=450, wanted=300)
    assert path.read_text() == content


def test_a_folder_that_cannot_be_written_is_named_and_nothing_counts_as_set(tmp_path: Path) -> None:
    values = SetValues(1, tmp_path / "nowhere" / "gpu-settings.json")
    with pytest.raises(NotKept, match="nowhere"):
        values.setting(LIMIT, current=450, wanted=300)
    assert not values.touched(LIMIT)
