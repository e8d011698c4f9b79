"""What an owner's settings come to."""

from __future__ import annotations

from pathlib import Path

from shrk_node_agent.engine.download import Downloads
from shrk_node_agent.engine.revisions import RevisionLock
from shrk_node_agent.engine.sweep import sweep
from shrk_node_agent.owner import PRETENDED_BYTES, contained, device_of, gpu_settings, needs_of, wanted_of
from shrk_node_agent.sensors.none import NoGpus
from shrk_node_agent.settings import AgentSettings, CatalogueEntry
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.terms.fit import SizeUnknown, needed
from shrk_node_agent.state.terms.occupancy import When


def settings(**given: object) -> AgentSettings:
    entry = CatalogueEntry(source="s")
    return AgentSettings(catalogue={"m": entry}, **given)  # type: ignore[arg-type]  # as the test names them


def test_the_terms_are_what_the_owner_set() -> None:
    wanted = wanted_of(settings(temp_max=68, schedule="22:00-08:00", time_zone="Europe/Berlin", when="idle"), NoGpus())
    assert (wanted.cap, str(wanted.zone), wanted.when, wanted.gpus) == (68, "Europe/Berlin", When.IDLE, False)
    assert len(wanted.schedule.windows) == 1


def test_a_gpu_is_told_as_it_was_read_and_what_it_does_not_tell_is_not_told() -> None:
    told = device_of(GpuReading("GPU-0", 0, "card", 24, None, 51.0, 120.0))
    assert (told.id, told.temperature_celsius, told.power_watts, told.utilisation) == ("GPU-0", 51.0, 120.0, None)


def test_a_container_is_known_by_what_its_engine_leaves_there(tmp_path: Path) -> None:
    marker = tmp_path / ".dockerenv"
    assert not contained((marker,))
    marker.touch()
    assert contained((marker,))


def test_what_is_kept_of_gpus_settings_outlives_the_sweep_of_an_agent_that_starts(tmp_path: Path) -> None:
    kept = gpu_settings(tmp_path)
    kept.touch()
    assert sweep(tmp_path / "run") == ()
    assert kept.exists()


def test_what_is_served_needs_what_its_owner_says_or_its_name_tells_and_the_rest_of_the_catalogue_is_known(
    tmp_path: Path,
) -> None:
    catalogue = {
        "spare": CatalogueEntry(source="org/Spare-7B-AWQ"),
        "said": CatalogueEntry(source="org/Said-70B", memory_gb=5),
        "word": CatalogueEntry(source="anything"),
    }
    owned = AgentSettings(catalogue=catalogue, models=("word", "said"))
    real = Downloads(tmp_path, tmp_path, RevisionLock(tmp_path / "models.lock"), tmp_path)
    needs = {need.engine: need for need in needs_of(owned, real)}
    assert [(name, need.served) for name, need in needs.items()] == [("word", True), ("said", True), ("spare", False)]
    assert (needs["said"].memory_bytes, needs["spare"].sized().parameters) == (5 * 10**9, 7.0)
    assert isinstance(needed(needs["word"].sized()), SizeUnknown)
    pretended = {need.engine: need for need in needs_of(owned, None)}
    assert pretended["word"].sized().memory_bytes == PRETENDED_BYTES, "a simulated engine's source is any word"
