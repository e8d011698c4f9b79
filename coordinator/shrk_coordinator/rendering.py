"""How the commands' answers look: JSON with `"schema": 1` for programs, plain text for people. Pure.

`option` is what a suggested command needs to find the same state folder: ` --state-dir DIR`, or nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from shrk_coordinator.accounts.keys import MintedKey
from shrk_coordinator.admin import Initialised, Invitations
from shrk_coordinator.records import ApiKey, JoinToken, Node, Revocation, pseudonym
from shrk_coordinator.text_table import table

_LINK_PORT_DEFAULT_HOST = "HOST"
#: Enough of a digest to tell tokens apart in a list.
_TOKEN_ID_LENGTH = 8

Json = dict[str, object]
_NONE: Mapping[str, Revocation] = MappingProxyType({})


def initialised_json(done: Initialised) -> Json:
    """The keys appear on the first run only."""
    if done.admin_key is None or done.api_key is None:
        return {"schema": 1, "already": True, "ca_fingerprint": done.ca_fingerprint}
    return {
        "schema": 1,
        "already": False,
        "admin_key": done.admin_key.text,
        "api_key": done.api_key.text,
        "ca_fingerprint": done.ca_fingerprint,
    }


def initialised_text(done: Initialised, state_dir: str, option: str) -> str:
    """What was made, and what to do next."""
    if done.admin_key is None or done.api_key is None:
        return (
            f"{state_dir} is already initialised; nothing was changed.\n"
            f"Keys are shown only when they are made. A new one: shrk coordinator keys create --name NAME{option}"
        )
    return (
        f"The coordinator in {state_dir} is ready to start.\n\n"
        f"  admin key       {done.admin_key.text}\n"
        f"  API key         {done.api_key.text}\n"
        f"  CA fingerprint  {done.ca_fingerprint}\n\n"
        "The keys are shown this once. Next:\n"
        f"  shrk coordinator serve{option}\n"
        f"  shrk coordinator tokens create --owner NAME{option}"
    )


def invitations_json(made: Invitations) -> Json:
    """Tokens with everything needed to use them."""
    return {
        "schema": 1,
        "tokens": [{"owner": t.owner, "token": t.token, "expires_at_unix_ms": t.expires_at} for t in made.tokens],
        "controller": made.controller,
        "ca_fingerprint": made.ca_fingerprint,
    }


def invitations_text(made: Invitations) -> str:
    """One line to paste for each owner's machine."""
    controller = made.controller or f"tcp://{_LINK_PORT_DEFAULT_HOST}:{made.link_port}"
    lines = []
    for token in made.tokens:
        lines += [
            f"# {token.owner}: one machine, until {_moment(token.expires_at)}",
            f"SHRK_CONTROLLER={controller} SHRK_JOIN_TOKEN={token.token} shrk node run",
        ]
    if made.controller is None:
        lines.append(f"# {_LINK_PORT_DEFAULT_HOST}: this coordinator's name or address as that machine sees it")
    return "\n".join(lines)


def join_tokens_json(tokens: Sequence[JoinToken]) -> Json:
    """All tokens, without secrets."""
    return {
        "schema": 1,
        "tokens": [
            {
                "id": _token_id(t),
                "owner": t.owner_name,
                "visibility": t.visibility.value,
                "labels": dict(t.labels),
                "created_at_unix_ms": t.created_at,
                "expires_at_unix_ms": t.expires_at,
                "used_at_unix_ms": t.used_at,
                "used_by": t.used_by,
            }
            for t in tokens
        ],
    }


def join_tokens_text(tokens: Sequence[JoinToken], now: int) -> str:
    """One line a token."""

    def state(token: JoinToken) -> str:
        if token.used_by is not None:
            return f"used by {token.used_by}"
        return f"open until {_moment(token.expires_at)}" if now < token.expires_at else "expired"

    rows = [(_token_id(t), t.owner_name, t.visibility.value, state(t)) for t in tokens]
    return table(("ID", "OWNER", "VISIBILITY", "STATE"), rows) if rows else "There are no join tokens."


def new_key_json(minted: MintedKey, row: ApiKey) -> Json:
    """The only place where a key's text appears."""
    return {
        "schema": 1,
        "id": row.id,
        "key": minted.text,
        "name": row.name,
        "scope": row.scope.value,
        "expires_at_unix_ms": row.expires_at,
    }


def new_key_text(minted: MintedKey, row: ApiKey) -> str:
    """The key, and its id for later."""
    until = "" if row.expires_at is None else f", until {_moment(row.expires_at)}"
    return f"{minted.text}\n# {row.scope.value} key {row.id} ({row.name}){until}. It is shown this once."


def key_json(key: ApiKey) -> Json:
    """A key without its text."""
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope.value,
        "created_at_unix_ms": key.created_at,
        "expires_at_unix_ms": key.expires_at,
        "revoked_at_unix_ms": key.revoked_at,
    }


def keys_json(keys: Sequence[ApiKey]) -> Json:
    """All keys, without their texts."""
    return {"schema": 1, "keys": [key_json(key) for key in keys]}


def revoked_text(key: ApiKey, already: bool) -> str:
    """What became of the key."""
    if already and key.revoked_at is not None:
        return f"Key {key.id} ({key.name}) was revoked already, {_moment(key.revoked_at)}; nothing was changed."
    return f"Key {key.id} ({key.name}) is revoked."


def keys_text(keys: Sequence[ApiKey], now: int, option: str) -> str:
    """One line a key."""

    def state(key: ApiKey) -> str:
        if key.revoked_at is not None:
            return f"revoked {_moment(key.revoked_at)}"
        if key.expires_at is None:
            return "valid"
        return f"{'valid until' if now < key.expires_at else 'expired'} {_moment(key.expires_at)}"

    rows = [(k.id, k.name, k.scope.value, _moment(k.created_at), state(k)) for k in keys]
    if not rows:
        return f"There are no keys. Make one: shrk coordinator keys create --name NAME{option}"
    return table(("ID", "NAME", "SCOPE", "CREATED", "STATE"), rows)


def nodes_json(nodes: Sequence[Node], revoked: Mapping[str, Revocation] = _NONE) -> Json:
    """All nodes that enrolled."""
    return {
        "schema": 1,
        "nodes": [
            {
                "id": n.id,
                "node": pseudonym(n.id),
                "owner": n.owner_name,
                "visibility": n.visibility.value,
                "labels": dict(n.labels),
                "host_name": n.host_name,
                "agent_version": n.agent_version,
                "created_at_unix_ms": n.created_at,
                "revoked_at_unix_ms": revoked[n.id].revoked_at if n.id in revoked else None,
                "revoked_reason": revoked[n.id].reason if n.id in revoked else None,
            }
            for n in nodes
        ],
    }


def nodes_text(nodes: Sequence[Node], option: str, revoked: Mapping[str, Revocation] = _NONE) -> str:
    """One line a node."""
    if not nodes:
        return f"No node has enrolled yet. Invite one: shrk coordinator tokens create --owner NAME{option}"

    def state(node: Node) -> str:
        known = revoked.get(node.id)
        return f"revoked {_moment(known.revoked_at)}: {known.reason}" if known else "valid"

    rows = [
        (pseudonym(n.id), n.id, n.owner_name, n.host_name, n.visibility.value, _moment(n.created_at), state(n))
        for n in nodes
    ]
    head = "Enrolled nodes, whether they run now or not (shrk coordinator nodes shows how they are now):\n"
    return head + table(("NODE", "ID", "OWNER", "HOST", "VISIBILITY", "ENROLLED", "STATE"), rows)


def node_revoked_json(node: Node, revocation: Revocation, already: bool) -> Json:
    """What became of the node."""
    return {
        "schema": 1,
        "id": node.id,
        "node": pseudonym(node.id),
        "already": already,
        "revoked_at_unix_ms": revocation.revoked_at,
        "reason": revocation.reason,
    }


def node_revoked_text(node: Node, revocation: Revocation, already: bool, option: str) -> str:
    """The same for people, with the way back."""
    back = f"Take it back: shrk coordinator nodes restore {node.id}{option}"
    if already:
        when = _moment(revocation.revoked_at)
        return f"{_named(node)} was revoked already, {when} ({revocation.reason}); nothing was changed.\n{back}"
    return f"{_named(node)} is revoked: {revocation.reason}. A running coordinator cuts its link within 5 s.\n{back}"


def node_restored_json(node: Node, was_revoked: bool) -> Json:
    """What became of the node."""
    return {"schema": 1, "id": node.id, "node": pseudonym(node.id), "restored": was_revoked}


def node_restored_text(node: Node, was_revoked: bool) -> str:
    """The same for people."""
    if not was_revoked:
        return f"{_named(node)} was not revoked; nothing was changed."
    return f"{_named(node)} is restored. Its agent dials again by itself, within two minutes."


def _named(node: Node) -> str:
    return f"Node {node.id} ({pseudonym(node.id)}, {node.owner_name}'s {node.host_name})"


def _token_id(token: JoinToken) -> str:
    return token.sha256.hex()[:_TOKEN_ID_LENGTH]


def _moment(unix_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC):%Y-%m-%d %H:%M} UTC"
