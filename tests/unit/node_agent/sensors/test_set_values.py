"""What settings were before we touched them, whoever else touches them meanwhile."""

from __future__ import annotations

from shrk_node_agent.sensors.set_values import SetValues


def test_what_we_set_twice_goes_back_to_what_it_was_before_the_first_time() -> None:
    values: SetValues[str] = SetValues(tolerance=1)
    values.setting("limit", current=450, wanted=300)
    values.left("limit", 300)
    values.setting("limit", current=300, wanted=250)
    values.left("limit", 250)
    assert values.to_restore("limit", current=250) == 450


def test_what_the_owner_has_set_since_stays() -> None:
    values: SetValues[str] = SetValues(tolerance=1)
    values.setting("limit", current=450, wanted=300)
    assert values.to_restore("limit", current=320) is None
    values.setting("limit", current=320, wanted=250)
    assert values.to_restore("limit", current=250) == 320


def test_a_value_that_the_driver_made_of_ours_is_ours_too() -> None:
    values: SetValues[str] = SetValues(tolerance=1)
    values.setting("limit", current=450, wanted=300)
    values.left("limit", 290)
    assert values.to_restore("limit", current=290) == 450


def test_what_was_never_set_or_is_as_it_was_needs_nothing() -> None:
    values: SetValues[str] = SetValues(tolerance=1)
    assert not values.touched("limit")
    assert values.to_restore("limit", current=450) is None
    values.setting("limit", current=450, wanted=300)
    values.left("limit", 450)
    assert values.touched("limit")
    assert values.to_restore("limit", current=450.5) is None
