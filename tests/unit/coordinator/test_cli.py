"""The operator's commands: their answers, their exit codes, and what they leave on disk."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from shrk_contract.settings import load
from shrk_coordinator.accounts.keys import parse
from shrk_coordinator.admin import Administration
from shrk_coordinator.cli import app
from shrk_coordinator.records import NewNode, Node, Visibility, pseudonym
from shrk_coordinator.rendering import nodes_json, nodes_text
from shrk_coordinator.settings import Address, CoordinatorSettings
from shrk_coordinator.store.store import Store


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    monkeypatch.setenv("SHRK_COORDINATOR_CONFIG", str(empty))


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    answer(folder, "init")
    return folder


def run(state_dir: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--state-dir", str(state_dir)])


def answer(state_dir: Path, *words: str) -> dict[str, Any]:
    """The JSON that a command prints."""
    result = run(state_dir, *words, "--json")
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    assert value["schema"] == 1
    return value


def test_init_makes_keys_once_and_says_so_the_second_time(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shrk_coordinator", "init", "--json", "--state-dir", str(tmp_path / "state")]
    first, second = (
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(2)
    )
    assert set(first) == {"schema", "already", "admin_key", "api_key", "ca_fingerprint"}
    assert parse(first["admin_key"]) is not None
    assert parse(first["api_key"]) is not None
    assert second == {"schema": 1, "already": True, "ca_fingerprint": first["ca_fingerprint"]}


def test_no_secret_is_written_to_disk(tmp_path: Path) -> None:
    made = answer(tmp_path / "state", "init")
    token = answer(tmp_path / "state", "tokens", "create", "--owner", "ann")["tokens"][0]["token"]
    written = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    for secret in (made["admin_key"], made["api_key"], token.removeprefix("shrk_join_").partition(".")[0]):
        assert secret.encode() not in written


def test_each_owner_gets_a_token_of_their_own(state_dir: Path) -> None:
    made = answer(state_dir, "tokens", "create", "--owner", "ann", "--owner", "bob", "--owner", "ann")
    assert [token["owner"] for token in made["tokens"]] == ["ann", "bob", "ann"]
    assert len({token["token"] for token in made["tokens"]}) == 3
    assert all(token["token"].startswith("shrk_join_") for token in made["tokens"])
    assert all(".9101." in token["token"] for token in made["tokens"])
    assert made["controller"] is None, "only the operator knows which address nodes can reach"
    assert len(answer(state_dir, "tokens", "list")["tokens"]) == 3


def test_a_tokens_terms_are_kept(state_dir: Path) -> None:
    answer(state_dir, "tokens", "create", "--owner", "ann", "--visibility", "public", "--label", "room=attic 2")
    (token,) = answer(state_dir, "tokens", "list")["tokens"]
    assert (token["owner"], token["visibility"], token["labels"]) == ("ann", "public", {"room": "attic 2"})
    assert token["expires_at_unix_ms"] - token["created_at_unix_ms"] == 15 * 60 * 1000
    assert token["used_by"] is None


def test_people_get_the_line_to_paste(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(state_dir, "tokens", "create", "--owner", "ann").stdout
    assert "SHRK_CONTROLLER=tcp://HOST:9100 SHRK_JOIN_TOKEN=shrk_join_" in text
    assert " shrk node run" in text
    monkeypatch.setenv("SHRK_COORDINATOR_PUBLIC_LINK_ADDRESS", "tcp://shrk.example.org:9100")
    text = run(state_dir, "tokens", "create", "--owner", "ann").stdout
    assert "SHRK_CONTROLLER=tcp://shrk.example.org:9100 " in text
    assert "HOST" not in text


def test_a_running_coordinator_tells_the_ports_it_chose(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_COORDINATOR_LINK_LISTEN", "127.0.0.1:0")
    refused = run(state_dir, "tokens", "create", "--owner", "ann")
    assert refused.exit_code == 1
    assert "Start it first" in refused.stderr

    (state_dir / "run").mkdir()
    ports = {"schema": 1, "pid": os.getpid(), "listen_port": 1, "link_port": 7000, "enrolment_port": 7001}
    (state_dir / "run" / "coordinator.json").write_text(json.dumps(ports))
    made = answer(state_dir, "tokens", "create", "--owner", "ann")
    assert ".7001." in made["tokens"][0]["token"]
    assert made["controller"] == "tcp://127.0.0.1:7000"


def test_the_ports_of_a_coordinator_that_died_are_not_believed(state_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    (state_dir / "run").mkdir()
    ports = {"schema": 1, "pid": ended.pid, "listen_port": 1, "link_port": 7000, "enrolment_port": 7001}
    (state_dir / "run" / "coordinator.json").write_text(json.dumps(ports))
    assert ".9101." in answer(state_dir, "tokens", "create", "--owner", "ann")["tokens"][0]["token"]


def test_a_key_is_shown_once_listed_without_its_text_and_revoked_by_its_id(state_dir: Path) -> None:
    made = answer(state_dir, "keys", "create", "--name", "my app", "--expires", "90d")
    assert set(made) == {"schema", "id", "key", "name", "scope", "expires_at_unix_ms"}
    assert made["scope"] == "caller"
    listed = run(state_dir, "keys", "list").stdout
    assert "my app" in listed
    assert made["key"] not in listed

    revoked = answer(state_dir, "keys", "revoke", made["id"])
    assert revoked["revoked_at_unix_ms"] is not None
    rows = {key["id"]: key for key in answer(state_dir, "keys", "list")["keys"]}
    assert rows[made["id"]]["revoked_at_unix_ms"] == revoked["revoked_at_unix_ms"]
    assert "was revoked already" in run(state_dir, "keys", "revoke", made["id"]).stdout
    assert answer(state_dir, "keys", "revoke", made["id"]) == revoked
    assert answer(state_dir, "keys", "create", "--name", "root", "--admin")["scope"] == "admin"


def test_an_unknown_key_cannot_be_revoked(state_dir: Path) -> None:
    result = run(state_dir, "keys", "revoke", "nope")
    assert result.exit_code == 1
    assert (
        f"there is no key 'nope'. See the ids with: shrk coordinator keys list --state-dir {state_dir}" in result.stderr
    )


def test_suggested_commands_find_the_same_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "a state"
    option = f" --state-dir '{odd}'"
    first, second = run(odd, "init").stdout, run(odd, "init").stdout
    assert f"shrk coordinator serve{option}\n" in first
    assert f"shrk coordinator tokens create --owner NAME{option}\n" in first
    assert f"shrk coordinator keys create --name NAME{option}\n" in second
    assert f"tokens create --owner NAME{option}\n" in run(odd, "nodes", "list").stdout
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("SHRK_COORDINATOR_STATE_DIR", raising=False)
    assert "--state-dir" not in CliRunner().invoke(app, ["init"]).stdout


def test_a_file_is_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(tmp_path / "file", "init")
    assert result.exit_code == 5
    assert f"{tmp_path / 'file'} is a file; name a folder" in result.stderr


def test_help_tells_each_settings_default_and_variable() -> None:
    command = typer.main.get_command(app)
    options = {option.name: option.help for option in command.commands["serve"].params}  # type: ignore[attr-defined]  # a group has commands
    defaults = {name: field.default for name, field in CoordinatorSettings.model_fields.items()}
    assert options.keys() == defaults.keys()
    for name, text in options.items():
        assert f"; env: SHRK_COORDINATOR_{name.upper()}]" in text
        if isinstance(defaults[name], (Address, float, str)):
            shown = f"{defaults[name]:g}" if isinstance(defaults[name], float) else str(defaults[name])
            assert f"[default: {shown};" in text


async def test_whether_any_key_opens_anything_is_known_before_the_start(tmp_path: Path) -> None:
    settings = load(CoordinatorSettings, state_dir=tmp_path / "state")
    now = 1_000
    admin = Administration(settings, lambda: now, os.urandom)
    assert not await admin.has_usable_key()
    assert not settings.state_dir.exists(), "looking makes nothing"
    made = await admin.initialise()
    assert await admin.has_usable_key()
    for key in (made.api_key, made.admin_key):
        assert key is not None
        await admin.revoke_key(key.id)
    assert not await admin.has_usable_key()


def test_serving_without_a_key_is_warned_about(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ports = ["--listen", "127.0.0.1:0", "--link-listen", "127.0.0.1:0"]
    command = [sys.executable, "-m", "shrk_coordinator", "serve", "--log-format", "json", "--state-dir", str(state)]
    with subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as serving:
        assert serving.stdout is not None
        said: list[dict[str, Any]] = []
        while not said or said[-1]["event"] != "ready":
            said.append(json.loads(serving.stdout.readline()))
        serving.terminate()
    (warning,) = [line for line in said if line["level"] == "warning"]
    assert "no valid API key exists yet" in warning["event"]
    assert warning["remedy"] == f"shrk coordinator keys create --name me --state-dir {state}"


def test_no_nodes_are_listed_before_one_enrols(state_dir: Path) -> None:
    assert answer(state_dir, "nodes", "list") == {"schema": 1, "nodes": []}
    assert "tokens create" in run(state_dir, "nodes", "list").stdout


@pytest.mark.parametrize(
    "words", [("tokens", "create", "--owner", "a"), ("keys", "create", "--name", "a"), ("nodes", "list")]
)
def test_a_mistyped_folder_does_not_become_a_coordinator(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run(tmp_path / "typo", *words)
    assert result.exit_code == 1
    assert "no coordinator lives in" in result.stderr
    assert "shrk coordinator init --state-dir" in result.stderr
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("tokens", "create"),
        ("tokens", "create", "--owner", "a b"),
        ("tokens", "create", "--owner", "a", "--ttl", "15"),
        ("tokens", "create", "--owner", "a", "--ttl", "32d"),
        ("tokens", "create", "--owner", "a", "--ttl", "0m"),
        ("tokens", "create", "--owner", "a", "--label", "room"),
        ("tokens", "create", "--owner", "a", "--visibility", "secret"),
        ("tokens", "create", "--owner", "a", "--visibility", "private"),
        ("keys", "create", "--name", ""),
        ("keys", "create", "--name", "a", "--expires", "soon"),
        ("keys", "revoke"),
    ],
)
def test_a_wrong_word_is_a_usage_error(state_dir: Path, words: tuple[str, ...]) -> None:
    assert run(state_dir, *words).exit_code == 2


def test_wrong_settings_end_with_5_and_one_block(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--listen", "0.0.0.0:8080", "--state-dir", str(tmp_path)])
    assert result.exit_code == 5
    first, second = result.stderr.splitlines()
    assert first.startswith("shrk: the settings of the coordinator (file: ")
    assert second.startswith("  listen = 0.0.0.0:8080")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(tmp_path / "file" / "state", "init")
    assert result.exit_code == 1
    assert str(tmp_path / "file") in result.stderr
    assert "--state-dir" in result.stderr


def test_an_enrolled_node_is_listed_under_both_of_its_names() -> None:
    node = Node("node_1", "o", "ann", Visibility.PUBLIC, "attic", "0.1", b"", created_at=0)
    [told] = nodes_json([node])["nodes"]  # type: ignore[misc]  # Json holds anything
    assert (told["id"], told["node"]) == ("node_1", pseudonym("node_1"))
    head, row = nodes_text([node], "").splitlines()[1:]
    assert (head.split()[:2], row.split()[:2]) == (["NODE", "ID"], [pseudonym("node_1"), "node_1"])


async def _enrolled(state_dir: Path) -> Node:
    store = await Store.open(f"sqlite:///{state_dir}/coordinator.db")
    await store.create_join_tokens(
        [("ann", b"digest")], owner_ids={"ann": "o"}, visibility=Visibility.PUBLIC, labels={}, now=1, expires_at=9
    )
    node = await store.redeem_join_token(b"digest", NewNode("node_1", "attic", "0.1", b"key"), 2)
    await store.close()
    assert isinstance(node, Node)
    return node


def test_a_node_is_revoked_and_restored_by_either_of_its_names(state_dir: Path) -> None:
    asyncio.run(_enrolled(state_dir))
    done = answer(state_dir, "nodes", "revoke", pseudonym("node_1"), "--reason", "sold")
    assert (done["id"], done["reason"], done["already"]) == ("node_1", "sold", False)
    assert answer(state_dir, "nodes", "revoke", "node_1")["already"] is True
    [listed] = answer(state_dir, "nodes", "list")["nodes"]
    assert (listed["revoked_reason"], listed["revoked_at_unix_ms"]) == ("sold", done["revoked_at_unix_ms"])
    assert ": sold" in run(state_dir, "nodes", "list").stdout
    assert f"nodes restore node_1 --state-dir {state_dir}" in run(state_dir, "nodes", "revoke", "node_1").stdout
    assert answer(state_dir, "nodes", "restore", "node_1")["restored"] is True
    assert "was not revoked; nothing was changed" in run(state_dir, "nodes", "restore", "node_1").stdout
    [listed] = answer(state_dir, "nodes", "list")["nodes"]
    assert listed["revoked_reason"] is None


@pytest.mark.parametrize("verb", ["revoke", "restore"])
def test_a_node_that_nobody_knows_is_said_so(state_dir: Path, verb: str) -> None:
    result = run(state_dir, "nodes", verb, "node_x")
    assert result.exit_code == 1
    assert "there is no node 'node_x'. See the ids with: shrk coordinator nodes list" in result.stderr


@pytest.mark.parametrize("reason", ["", "x" * 201, "two\nlines"])
def test_a_reason_is_one_line(state_dir: Path, reason: str) -> None:
    result = run(state_dir, "nodes", "revoke", "node_1", "--reason", reason)
    assert result.exit_code == 2
    assert "1 to 200 printable characters" in result.stderr
