"""Which identity a machine starts with: its own, while the coordinator lets it; a token is spent on need only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shrk_coordinator.control_plane.authority import Authority
from shrk_coordinator.control_plane.enrolment import join_token_text
from shrk_node_agent.link.identity import Identity, load, new_identity, save
from shrk_node_agent.link.joining import OtherCoordinator, known_identity
from shrk_node_agent.link.renewal import LateIdentity, RenewalFailed, RenewalUnreachable
from support.certificates import csr_for, key_pem, p256

NOW = 1_795_176_000_000
DAY_MS = 24 * 3600 * 1000


@dataclass
class Machine:
    """A machine that enrolled at NOW, and a coordinator that renews, or says why not."""

    folder: Path
    authority: Authority
    refusal: Exception | None = None
    asked_at: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._key = p256()
        self.identity = new_identity(
            node_id="node_a",
            key_pem=key_pem(self._key),
            certificate_pem=self.authority.sign_node(csr_for(self._key), "node_a", NOW).pem.encode(),
            ca_pem=self.authority.ca_pem.encode(),
            link_addresses=("tcp://10.0.0.1:9100",),
            controller="tcp://10.0.0.1:9100",
        )
        save(self.folder, self.identity)

    def token(self, authority: Authority | None = None) -> str:
        return join_token_text("x" * 43, 9101, (authority or self.authority).ca_digest())

    async def late(self, identity: Identity, address: str) -> LateIdentity:
        self.asked_at.append(address)
        if self.refusal is not None:
            raise self.refusal
        signed = self.authority.sign_node(csr_for(self._key), "node_a", NOW + 2 * DAY_MS)
        return LateIdentity(identity.renewed(signed.pem.encode(), identity.ca_pem), NOW + 2 * DAY_MS)

    async def starts(self, token: str | None, now: int = NOW, *addresses: str) -> Identity | None:
        return await known_identity(self.folder, token, addresses, now, self.late)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "identity", Authority.open(tmp_path / "state", lambda: NOW))


async def test_a_machine_without_an_identity_needs_one(machine: Machine, tmp_path: Path) -> None:
    assert await known_identity(tmp_path / "nothing", machine.token(), (), NOW, machine.late) is None


@pytest.mark.parametrize("token", [None, "garbage"])
async def test_an_identity_needs_no_token(machine: Machine, token: str | None) -> None:
    assert await machine.starts(token) == machine.identity


async def test_an_identity_that_is_good_is_kept_whatever_token_is_at_hand(machine: Machine) -> None:
    assert await machine.starts(machine.token()) == machine.identity
    assert machine.asked_at == []


async def test_a_token_of_another_coordinator_is_refused_with_the_way_out(machine: Machine, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other", lambda: NOW)
    for now in (NOW, NOW + 300 * DAY_MS):
        with pytest.raises(OtherCoordinator) as refused:
            await machine.starts(machine.token(other), now)
        said = str(refused.value)
        assert machine.authority.ca_fingerprint() in said
        assert other.ca_fingerprint() in said
        assert "node_a of the coordinator at tcp://10.0.0.1:9100" in said
        assert f"mv {machine.folder} {machine.folder}.old" in said


async def test_an_expired_identity_is_renewed_and_the_token_kept(machine: Machine) -> None:
    renewed = await machine.starts(machine.token(), NOW + 2 * DAY_MS)
    assert renewed == load(machine.folder) != machine.identity
    assert machine.asked_at == ["tcp://10.0.0.1:9100"]


async def test_the_owners_word_says_where_to_renew(machine: Machine) -> None:
    await machine.starts(machine.token(), NOW + 2 * DAY_MS, "tcp://10.0.0.2:9100")
    assert machine.asked_at == ["tcp://10.0.0.2:9100"]


async def test_an_identity_that_is_not_renewed_gives_way_to_the_token(machine: Machine) -> None:
    machine.refusal = RenewalFailed("More than 180 days ago.", "Enrol.")
    assert await machine.starts(machine.token(), NOW + 300 * DAY_MS) is None


async def test_an_identity_is_not_given_up_because_nobody_answers(machine: Machine) -> None:
    machine.refusal = RenewalUnreachable("Nobody is there.", "Wait.")
    assert await machine.starts(machine.token(), NOW + 2 * DAY_MS) == machine.identity


async def test_a_clock_that_is_behind_does_not_cost_the_identity(machine: Machine) -> None:
    assert await machine.starts(machine.token(), NOW - DAY_MS) == machine.identity
