"""What the composition root asks of the system."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from shrk_contract.settings import load
from shrk_coordinator.app import FILES_MAX, Coordinator, raise_open_files
from shrk_coordinator.settings import CoordinatorSettings


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """This process's limits of open files, put back at the end."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_as_many_files_may_be_open_as_there_are_links_and_callers(limits: tuple[int, int]) -> None:
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    raise_open_files()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == (FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard))


def test_a_limit_that_is_higher_already_stays(limits: tuple[int, int]) -> None:
    raise_open_files()
    raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised


def test_two_coordinators_of_the_same_settings_are_two(tmp_path: Path) -> None:
    settings = load(CoordinatorSettings, state_dir=tmp_path)
    assert Coordinator(settings) is not Coordinator(settings)
