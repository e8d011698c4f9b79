"""Settings: where they come from, which win, and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from shrk_contract.settings import SettingsError, load
from shrk_coordinator.settings import Address, CoordinatorSettings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    monkeypatch.setenv("SHRK_COORDINATOR_CONFIG", str(empty))


def use_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    path = tmp_path / "coordinator.toml"
    path.write_text(text)
    monkeypatch.setenv("SHRK_COORDINATOR_CONFIG", str(path))


def test_a_flag_beats_the_environment_which_beats_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_file(monkeypatch, tmp_path, 'listen = "127.0.0.1:1"\nlink_listen = "127.0.0.1:2"\ndrain_seconds = 3')
    monkeypatch.setenv("SHRK_COORDINATOR_LISTEN", "127.0.0.1:11")
    monkeypatch.setenv("SHRK_COORDINATOR_LINK_LISTEN", "127.0.0.1:12")

    settings = load(CoordinatorSettings, listen="127.0.0.1:21", state_dir=None)

    assert settings.listen == Address("127.0.0.1", 21)
    assert settings.link_listen == Address("127.0.0.1", 12)
    assert settings.drain_seconds == 3


def test_the_enrolment_port_is_the_one_after_the_links() -> None:
    assert load(CoordinatorSettings, link_listen="10.0.0.1:7000").enrolment_listen == Address("10.0.0.1", 7001)
    assert load(CoordinatorSettings, link_listen="127.0.0.1:0").enrolment_listen == Address("127.0.0.1", 0)
    assert load(CoordinatorSettings, enrolment_listen="127.0.0.1:5").enrolment_listen == Address("127.0.0.1", 5)


def test_the_link_on_the_last_port_asks_for_an_enrolment_port() -> None:
    with pytest.raises(SettingsError, match="enrolment_listen"):
        load(CoordinatorSettings, link_listen="0.0.0.0:65535")


def test_the_database_lies_in_the_state_folder(tmp_path: Path) -> None:
    assert load(CoordinatorSettings, state_dir=tmp_path).database_url == f"sqlite:///{tmp_path}/coordinator.db"


def test_an_unknown_key_in_the_file_is_an_error_with_a_suggestion(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_file(monkeypatch, tmp_path, 'lissten = "127.0.0.1:1"')
    with pytest.raises(SettingsError, match=r"lissten is not a setting; did you mean listen\?"):
        load(CoordinatorSettings)


def test_an_unknown_variable_is_an_error_with_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_COORDINATOR_STATEDIR", "/x")
    with pytest.raises(SettingsError, match=r"SHRK_COORDINATOR_STATEDIR .* did you mean SHRK_COORDINATOR_STATE_DIR\?"):
        load(CoordinatorSettings)


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_COORDINATOR_DRAIN_SECONDS", "9999")
    monkeypatch.setenv("SHRK_COORDINATOR_X", "1")
    with pytest.raises(SettingsError) as caught:
        load(CoordinatorSettings, listen="here")
    assert len(caught.value.problems) == 3
    assert "--listen: 'here' is not host:port" in str(caught.value)
    assert "SHRK_COORDINATOR_DRAIN_SECONDS: Input should be less than or equal to 3600" in str(caught.value)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:8080", "example.org:80"])
def test_plain_http_beyond_this_machine_is_refused_with_three_remedies(listen: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(CoordinatorSettings, listen=listen)
    for remedy in ("--tls-cert", "--behind-proxy", "--insecure-http"):
        assert remedy in str(caught.value)


def test_each_remedy_lets_callers_in_from_elsewhere() -> None:
    assert load(CoordinatorSettings, listen="0.0.0.0:80", insecure_http=True).insecure_http
    assert len(load(CoordinatorSettings, listen="0.0.0.0:80", behind_proxy="10.0.0.0/8, fd00::/8").behind_proxy) == 2
    assert load(CoordinatorSettings, listen="0.0.0.0:80", tls_cert="c.pem", tls_key="k.pem").tls_key == Path("k.pem")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:8080", "localhost:8080", "127.9.9.9:1"])
def test_loopback_needs_no_remedy(listen: str) -> None:
    assert load(CoordinatorSettings, listen=listen).listen.is_loopback


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="tls_cert is set without tls_key"):
        load(CoordinatorSettings, tls_cert="c.pem")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("behind_proxy", "10.0.0.0/80", "'10.0.0.0/80' is not a network"),
        ("public_link_address", "http://x:1", "'http://x:1' is not tcp://host:port"),
        ("public_link_address", "tcp://x:0", "'tcp://x:0' is not tcp://host:port"),
        ("public_link_address", "tcp://my_host:9100", "'tcp://my_host:9100' is not tcp://host:port"),
        ("link_listen", "::1:80", "'::1:80' is not host:port"),
        ("link_listen", "127.0.0.1:65536", "is not host:port"),
        ("log_format", "xml", "Input should be 'auto', 'console' or 'json'"),
        ("database_url", "mysql://x", "'mysql' is not supported"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(name: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(CoordinatorSettings, **{name: value})
    assert told in str(caught.value)


def test_a_named_file_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHRK_COORDINATOR_CONFIG", str(tmp_path / "gone.toml"))
    with pytest.raises(SettingsError, match=r"gone.toml cannot be read: No such file"):
        load(CoordinatorSettings)


def test_a_file_that_is_no_toml_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_file(monkeypatch, tmp_path, "listen = 127.0.0.1:1")
    with pytest.raises(SettingsError, match=r"not valid TOML.*line 1"):
        load(CoordinatorSettings)


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_COORDINATOR_TLS_CERT", "")
    assert load(CoordinatorSettings).tls_cert is None
