"""The SDK is openai plus two clients that read a coordinator's address and key from the environment."""

from __future__ import annotations

import openai
import pytest

import shrk


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHRK_BASE_URL", "SHRK_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_every_public_name_of_openai_is_here_and_is_the_same_object() -> None:
    assert set(openai.__all__) < set(shrk.__all__)
    for name in openai.__all__:
        assert getattr(shrk, name) is getattr(openai, name), name


@pytest.mark.parametrize("client_class", [shrk.Shrk, shrk.AsyncShrk])
def test_address_and_key_come_from_the_environment(
    client_class: type[shrk.Shrk] | type[shrk.AsyncShrk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHRK_BASE_URL", "http://10.0.0.1:9000/v1")
    monkeypatch.setenv("SHRK_API_KEY", "shrk_key")
    client = client_class()
    assert str(client.base_url) == "http://10.0.0.1:9000/v1/"
    assert client.api_key == "shrk_key"


@pytest.mark.parametrize("client_class", [shrk.Shrk, shrk.AsyncShrk])
def test_arguments_win_over_the_environment_and_other_options_pass_through(
    client_class: type[shrk.Shrk] | type[shrk.AsyncShrk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHRK_BASE_URL", "http://10.0.0.1:9000/v1")
    monkeypatch.setenv("SHRK_API_KEY", "from the environment")
    client = client_class(api_key="given", base_url="http://localhost:1/v1", max_retries=7)
    assert str(client.base_url) == "http://localhost:1/v1/"
    assert client.api_key == "given"
    assert client.max_retries == 7


def test_without_settings_the_coordinator_is_looked_for_on_this_machine() -> None:
    assert str(shrk.Shrk(api_key="k").base_url) == "http://127.0.0.1:8080/v1/"


@pytest.mark.parametrize("client_class", [shrk.Shrk, shrk.AsyncShrk])
def test_a_missing_key_is_a_clear_error(client_class: type[shrk.Shrk] | type[shrk.AsyncShrk]) -> None:
    with pytest.raises(shrk.OpenAIError, match="SHRK_API_KEY"):
        client_class()


def test_a_key_or_address_meant_for_openai_never_reaches_a_coordinator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    with pytest.raises(shrk.OpenAIError):
        shrk.Shrk()
    assert str(shrk.Shrk(api_key="k").base_url) == "http://127.0.0.1:8080/v1/"


def test_a_copy_with_other_options_keeps_address_and_key() -> None:
    client = shrk.Shrk(api_key="k", base_url="http://localhost:1/v1").with_options(timeout=3)
    assert isinstance(client, shrk.Shrk)
    assert (client.api_key, str(client.base_url)) == ("k", "http://localhost:1/v1/")
