"""A node's certificates over real gRPC on loopback: renewed in time and late, revoked, and copied."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509

from shrk_contract.service import running
from shrk_contract.terms import State
from shrk_coordinator.control_plane.door import Door
from shrk_coordinator.control_plane.link_server import LinkServer, serve_links
from shrk_coordinator.control_plane.links import Links
from shrk_coordinator.driver import Driver
from shrk_coordinator.metrics import Metrics
from shrk_coordinator.settings import Address
from shrk_coordinator.state.verdict import state_of
from shrk_node_agent.link.dial import Dialler, LinkState
from shrk_node_agent.link.enrol import enrol
from shrk_node_agent.link.identity import Identity, load, save
from shrk_node_agent.link.renewal import ClockWrong, Renewal, RenewalFailed, renew_late, signing_request
from shrk_node_agent.link.session import SessionPort
from support.enrolment import EnrolmentPort, enrolment_port
from support.network import until
from support.states import a_report

DAY_MS = 24 * 3600 * 1000
HOUR_MS = DAY_MS // 24


@dataclass
class House:
    """A coordinator: enrolment and links, with everything behind them."""

    door: EnrolmentPort
    links: Links
    driver: Driver
    address: str

    async def identity(self, folder: Path) -> Identity:
        """A node that has just enrolled."""
        token = self.door.token(await self.door.secret())
        return await enrol(self.address, token, folder, "rig", "0", retry_delays_seconds=())

    def aged(self, identity: Identity, days: int) -> Identity:
        """The same node, with the certificate that it got so many days ago."""
        then = self.door.clock() - days * DAY_MS
        signed = self.door.authority.sign_node(signing_request(identity), identity.node_id, then)
        return identity.renewed(signed.pem.encode(), identity.ca_pem)


@asynccontextmanager
async def a_house(folder: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(enrolment_port(folder))
        driver, links = Driver(Metrics()), Links(b"boot", [])
        driver.connect(links)
        await stack.enter_async_context(running(driver.run(), "driver"))
        gate = Door(door.store.admission, door.store.revoked_after, door.clock)
        servicer = LinkServer(links, gate.admit, driver.post, driver.now, door.renewals.on_link)
        server, port = await serve_links(servicer, door.authority.link_credentials(), Address("127.0.0.1", 0))
        stack.push_async_callback(server.stop, None)
        await stack.enter_async_context(running(gate.watch(links, look_seconds=0.02), "revocations"))
        yield House(door, links, driver, f"tcp://127.0.0.1:{port}")


@dataclass
class Machine:
    """An agent's link, with a clock of its own; whoever pauses is written down and goes on at once."""

    folder: Path
    identity: Identity
    address: str
    incarnation: int = 1
    #: Between its own clock and ours.
    ahead_ms: int = 0
    pauses: list[float] = field(default_factory=list)
    #: While it is clear, whoever pauses waits.
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    def clock(self) -> int:
        return int(dt.datetime.now(dt.UTC).timestamp() * 1000) + self.ahead_ms

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0.01)
        await self.goes_on.wait()

    async def wait(self, seconds: float) -> None:
        """The renewal's own pauses: short ones."""
        await asyncio.sleep(0.01)

    async def save(self, identity: Identity) -> None:
        await asyncio.to_thread(save, self.folder, identity)
        self.ahead_ms = 0

    @asynccontextmanager
    async def dials(self) -> AsyncIterator[Dialler]:
        self.goes_on.set()
        dialler = Dialler(
            identity=self.identity,
            addresses=(self.address,),
            incarnation=self.incarnation,
            agent_version="0",
            port=SessionPort(lambda *_: None, lambda sink: None, lambda key: None, lambda *_: None),
            report=lambda: a_report("m"),
            lost=lambda session: None,
            changed=lambda: None,
            clock=self.clock,
            monotonic=asyncio.get_running_loop().time,
            fraction=lambda: 0.5,
            pause=self.pause,
            renewal=Renewal(self.save, renew_late, self.wait),
            start_id=os.urandom(16),
        )
        async with running(dialler.run(), "dialler"):
            yield dialler


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path / "coordinator") as opened:
        yield opened


@pytest.fixture
async def machine(house: House, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "identity", await house.identity(tmp_path / "identity"), house.address)


def is_up(dialler: Dialler) -> bool:
    return dialler.status.state is LinkState.CONNECTED


async def test_at_two_thirds_of_its_life_a_certificate_is_renewed_over_a_second_link(
    house: House, machine: Machine
) -> None:
    machine.ahead_ms = 17 * HOUR_MS
    async with machine.dials() as dialler:
        await until(lambda: dialler.status.links == 2, "the link is opened anew")
        await until(lambda: len(house.links.all()) == 1, "the old link is left")
        [link] = house.links.all()
        renewed = load(machine.folder)
        assert renewed is not None
        assert renewed.certificate_pem != machine.identity.certificate_pem
        serial = x509.load_pem_x509_certificate(renewed.certificate_pem).serial_number
        node = house.driver.state.roster.nodes[renewed.node_id]
        assert (link.serial, node.link, node.leaving) == (f"{serial:x}", link.id, None)
        await until(lambda: house.driver.state.roster.count("m") == 1, "the node serves")
        assert (is_up(dialler), machine.pauses) == (True, [0.0])


async def test_before_its_time_nothing_is_renewed(house: House, machine: Machine) -> None:
    machine.ahead_ms = 14 * HOUR_MS
    async with machine.dials() as dialler:
        await until(lambda: is_up(dialler), "it is linked")
        await until(lambda: house.driver.state.roster.count("m") == 1, "the node serves")
        assert dialler.status.links == 1
    assert load(machine.folder) == machine.identity


@pytest.mark.parametrize("days", [2, 179])
async def test_a_node_that_slept_past_its_certificate_comes_back_by_itself(
    house: House, machine: Machine, days: int
) -> None:
    machine.identity = house.aged(machine.identity, days)
    async with machine.dials() as dialler:
        await until(lambda: is_up(dialler), "it is linked")
    renewed = load(machine.folder)
    assert renewed is not None
    assert renewed.node_id == machine.identity.node_id
    renewed.check_dates(machine.clock())


async def test_a_node_that_was_away_for_longer_is_told_to_enrol_anew_and_dials_rarely(
    house: House, machine: Machine
) -> None:
    machine.identity = house.aged(machine.identity, 182)
    async with machine.dials() as dialler:
        await until(lambda: len(machine.pauses) >= 2, "it was refused twice")
        assert dialler.status.state is LinkState.REFUSED
        assert "more than 180 days ago" in dialler.status.reason
        assert "enrol the node with a new join token" in dialler.status.reason
    assert set(machine.pauses) == {60.0}


async def test_a_machine_whose_clock_is_days_fast_says_both_times(house: House, machine: Machine) -> None:
    late = await renew_late(machine.identity, f"tcp://127.0.0.1:{house.door.port - 1}")
    late.check_clock(machine.clock())
    with pytest.raises(ClockWrong, match=r"This machine's clock says .* UTC, its coordinator's says .* UTC\. Set the"):
        late.check_clock(machine.clock() + 2 * DAY_MS)


async def test_a_coordinator_that_is_too_old_to_renew_is_named(tmp_path: Path) -> None:
    async with enrolment_port(tmp_path / "coordinator", renews=False) as door:
        token = door.token(await door.secret())
        identity = await enrol(door.controller, token, tmp_path / "identity", "rig", "0", retry_delays_seconds=())
        with pytest.raises(RenewalFailed, match=r"is too old to renew it\. Update the coordinator"):
            await renew_late(identity, door.controller)


async def test_a_revoked_node_is_cut_off_says_why_and_comes_back_when_it_is_restored(
    house: House, machine: Machine
) -> None:
    async with machine.dials() as dialler:
        await until(lambda: is_up(dialler), "it is linked")
        machine.goes_on.clear()
        await house.door.store.revoke_node(machine.identity.node_id, "sold the rig", machine.clock())
        await until(lambda: bool(machine.pauses), "it was cut off")
        assert dialler.status.state is LinkState.REFUSED
        assert dialler.status.reason.startswith(
            f"The operator of this coordinator revoked {machine.identity.node_id}: sold the rig. Ask the operator"
        )
        machine.goes_on.set()
        await until(lambda: len(machine.pauses) >= 2, "it was refused at the door")
        assert set(machine.pauses) == {60.0}
        assert "sold the rig" in dialler.status.reason
        assert await house.door.store.restore_node(machine.identity.node_id)
        await until(lambda: is_up(dialler), "it is linked again")


async def test_a_restarted_agent_replaces_its_own_half_open_link(house: House, machine: Machine) -> None:
    async with machine.dials() as dialler:
        await until(lambda: is_up(dialler), "it is linked")
        machine.goes_on.clear()
        again = Machine(machine.folder, machine.identity, house.address, incarnation=2)
        async with again.dials() as restarted:
            await until(lambda: is_up(restarted) and len(house.links.all()) == 1, "the newer start holds the link")
            await until(lambda: dialler.status.state is LinkState.REFUSED, "the older one was told")
            assert "A newer start of this agent holds the node's link." in dialler.status.reason
            assert is_up(restarted)


async def test_two_machines_with_one_identity_are_both_refused_and_shown_as_quarantined(
    house: House, machine: Machine
) -> None:
    copy = Machine(machine.folder, machine.identity, house.address, incarnation=2)
    async with machine.dials() as dialler:
        await until(lambda: is_up(dialler), "it is linked")
        async with copy.dials() as other:
            for one in (dialler, other):
                await until(lambda one=one: "is quarantined" in one.status.reason, "both are refused")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                assert one.status.state is LinkState.REFUSED
                assert "Enrol one of them anew" in one.status.reason
            node = house.driver.state.roster.nodes[machine.identity.node_id]
            assert state_of(node) is State.QUARANTINED
            assert house.links.all() == [] or all(link.refusal for link in house.links.all())
