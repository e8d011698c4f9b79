"""Answers to `shrk setup`: what they mean, and that the settings' own validators judge them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shrk_node_agent.commands.setup_answers import AnswerWrong, Joining, checked, join_token, joining, models, optional
from shrk_node_agent.known_models import suggestions
from support.gpus import a_gpu
from support.join_tokens import A_TOKEN as TOKEN

OFFERED = [one for one in suggestions([a_gpu(0, 24)], 0) if one.fits]


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("tcp://10.0.0.1:9100", Joining("tcp://10.0.0.1:9100")),
        (
            f"SHRK_CONTROLLER=tcp://pool.example:9200 SHRK_JOIN_TOKEN={TOKEN} shrk node run",
            Joining("tcp://pool.example:9200", TOKEN),
        ),
        (
            f"curl -fsSL http://pool.example:8080/install | sudo sh -s -- --token {TOKEN}",
            Joining("", TOKEN, "tcp://pool.example:9100"),
        ),
        (f"curl http://[::1]:8080/install | SHRK_JOIN_TOKEN='{TOKEN}' sh", Joining("", TOKEN, "tcp://[::1]:9100")),
        (TOKEN, Joining("", TOKEN)),
        # So it is printed by a coordinator that does not know its own address.
        (f"SHRK_CONTROLLER=tcp://HOST:9100 SHRK_JOIN_TOKEN={TOKEN} shrk node run", Joining("", TOKEN)),
    ],
)
def test_an_address_a_token_and_both_kinds_of_join_line_are_understood(text: str, means: Joining) -> None:
    assert joining(text) == means


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.1", "'10.0.0.1' is neither an address, such as tcp://10.0.0.1:9100, nor the join line"),
        ("tcp://10.0.0.1", "is not tcp://host:port"),
        ("tcp://a:1,tcp://b:2", "asks for a pool"),
        (f"tcp://a:1 {TOKEN[:-1]}", "The join token is not complete"),
    ],
)
def test_what_is_none_of_them_is_told(text: str, told: str) -> None:
    with pytest.raises(AnswerWrong) as wrong:
        joining(text)
    assert told in str(wrong.value)


def test_a_damaged_token_is_never_repeated() -> None:
    damaged = TOKEN.replace("aaa", "aab", 1)
    with pytest.raises(AnswerWrong) as wrong:
        join_token(damaged)
    assert "damaged in copying" in str(wrong.value)
    assert "aab" not in str(wrong.value)


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("temp_max", "120", "not 120; allowed is 40 to 95"),
        ("temp_max", "warm", "a valid number"),
        ("schedule", "22-8", "is not HH:MM-HH:MM"),
        ("payout_address", "0x12", "is not a payout address"),
        ("payout_address", "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "has a wrong checksum"),
        ("name", "", "at least 1 character"),
    ],
)
def test_the_settings_own_validators_judge_in_their_own_words_and_without_a_flag(
    key: str, text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neither a broken file nor variables of this shell have a say in it.
    monkeypatch.setenv("SHRK_CONFIG", "/nowhere/config.toml")
    monkeypatch.setenv(f"SHRK_{key.upper()}", "1")
    monkeypatch.setenv("SHRK_NO_SUCH", "1")
    with pytest.raises(AnswerWrong) as wrong:
        checked(key, text)
    assert told in str(wrong.value)
    assert "--" not in str(wrong.value)


@pytest.mark.parametrize(("key", "text"), [("temp_max", "68"), ("schedule", "mon-fri 22:00-08:00"), ("name", "rig-1")])
def test_what_the_settings_take_is_taken_as_it_was_typed(key: str, text: str) -> None:
    assert checked(key, text) == text


@pytest.mark.parametrize("text", ["", "none", "None", "-", "always", "no"])
def test_nothing_has_words(text: str) -> None:
    assert optional("schedule", text) == optional("payout_address", text) == ""


def test_models_come_by_number_by_name_from_the_hub_and_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "Mine").mkdir()
    found = models(f"1, qwen3-8b,Org/Own-Model {tmp_path}/Mine", OFFERED, {}).added
    assert list(found) == [OFFERED[0].known.name, "qwen3-8b", "own-model", "mine"]
    assert found["own-model"] == {"source": "Org/Own-Model"}
    assert found["mine"] == {"source": f"{tmp_path}/Mine"}
    assert found["qwen3-8b"]["weights_gb"] == 16.4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0", "0 is not in the list: its numbers are 1 to "),
        ("99", "99 is not in the list"),
        ("qwen", "no number of the list, no ORG/NAME of a model on the hub, and no folder here"),
        ("/no/where", "/no/where is no folder of this machine"),
        ("a/b/c", "no ORG/NAME"),
        ("other/has", "has is in the catalogue already"),
    ],
)
def test_a_model_that_cannot_be_meant_is_told(text: str, told: str) -> None:
    with pytest.raises(AnswerWrong) as wrong:
        models(text, OFFERED, {"has": "org/has"})
    assert told in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a/x,b/x", "b/x and a/x would both be called x: take one of them now"),
        ("a/x b/X", "shrk set catalogue.x-2.source b/X"),
        ("a/qwen3-8b,qwen3-8b", "Qwen/Qwen3-8B and a/qwen3-8b would both be called qwen3-8b"),
        ("a/m.1,b/m.1", """shrk set 'catalogue."m.1-2".source' b/m.1"""),
        ("a/x,a/x-2,b/x", "shrk set catalogue.x-3.source b/x"),
    ],
)
def test_two_models_of_one_name_are_refused_with_what_adds_the_other(text: str, told: str) -> None:
    with pytest.raises(AnswerWrong) as wrong:
        models(text, OFFERED, {})
    assert told in str(wrong.value)


def test_a_model_that_is_said_twice_is_one_model() -> None:
    name = OFFERED[0].known.name
    assert list(models(f"a/x,1,a/x {name}", OFFERED, {}).added) == ["x", name]


def test_a_model_without_a_size_is_told_where_all_share_a_bound() -> None:
    with pytest.raises(AnswerWrong, match="memory_gb: it is missing"):
        models("org/own", OFFERED, {}, memory_gb=20)


def test_the_simulated_engine_takes_any_name() -> None:
    assert models("anything", (), {}, simulated=True).added == {"anything": {"source": "anything"}}


def test_changes_are_keys_of_the_file_and_what_is_served_is_named_where_others_are() -> None:
    found = models("org/m.1", (), {"has": "x"})
    assert found.changes([]) == {'catalogue."m.1".source': "org/m.1"}
    assert found.changes(["has"]) == {'catalogue."m.1".source': "org/m.1", "models": "has,m.1"}
    assert models("", (), {"has": "x"}).changes(["has"]) == {}
