"""An owner's settings: which models are served, in which order, and what of them cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shrk_contract.settings import SettingsError, load
from shrk_node_agent.settings import AgentSettings
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
    return [spec.model for spec in settings.specs()]


CATALOGUE = '[catalogue.zebra]\nsource = "z"\n[catalogue.ant]\nsource = "a"\n[catalogue.moose]\nsource = "m"\n'


def test_models_are_served_in_the_order_in_which_their_owner_wrote_them(read: Read) -> None:
    assert served(read(CATALOGUE)) == ["zebra", "ant", "moose"]
    assert served(read('models = ["moose", "zebra"]\n' + CATALOGUE)) == ["moose", "zebra"]


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
