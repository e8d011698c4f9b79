"""Time zones by name."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shrk_node_agent.time_zone import NAMELESS, NEAREST_MAX, in_force, named_zone, zone


def test_a_zone_is_found_by_its_name() -> None:
    assert named_zone("America/New_York") == zoneinfo.ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("America/NewYork", "America/New_York"),
        ("new york", "America/New_York"),
        ("kolkata", "Asia/Kolkata"),
        ("utc", "UTC"),
    ],
)
def test_of_a_name_that_is_none_the_nearest_are_told(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone; did you mean") as refused:
        named_zone(name)
    assert nearest in str(refused.value)
    assert str(refused.value).count(" or ") < NEAREST_MAX


def test_where_nothing_is_near_an_example_is_told() -> None:
    with pytest.raises(ValueError, match="write one such as Europe/Berlin or UTC, or leave it empty"):
        named_zone("my desk")


def test_where_a_machine_has_no_zones_the_package_is_named() -> None:
    zoneinfo.reset_tzpath(to=())
    try:
        with pytest.raises(ValueError, match="no time zones; install the package tzdata"):
            named_zone("Nowhere/Else")
    finally:
        zoneinfo.reset_tzpath()


def test_without_a_name_it_is_the_machines_own_zone_or_utc(tmp_path: Path) -> None:
    [compiled] = [path for root in zoneinfo.TZPATH if (path := Path(root, "Asia/Kolkata")).exists()][:1]
    summer = datetime(2026, 7, 1, tzinfo=UTC)
    assert summer.astimezone(zone("", compiled)).strftime("%z") == "+0530"
    assert zone("", tmp_path / "none") is UTC
    (tmp_path / "damaged").write_bytes(b"none of it")
    assert zone("", tmp_path / "damaged") is UTC
    assert zone("Asia/Kolkata") == zoneinfo.ZoneInfo("Asia/Kolkata")


def test_the_zone_in_force_is_told_by_its_name_and_why_it_is_that_one(tmp_path: Path) -> None:
    [compiled] = [path for root in zoneinfo.TZPATH if (path := Path(root, "Asia/Kolkata")).exists()][:1]
    (tmp_path / "link").symlink_to(compiled)
    (tmp_path / "copy").write_bytes(compiled.read_bytes())
    assert str(in_force("UTC", zone("UTC"))) == "UTC"
    assert str(in_force("", zone("", tmp_path / "link"))) == "Asia/Kolkata, the machine's own"
    assert str(in_force("", zone("", tmp_path / "copy"))) == f"{NAMELESS}, the machine's own"
    assert str(in_force("", zone("", tmp_path / "none"))) == "UTC, since this machine names no zone"
