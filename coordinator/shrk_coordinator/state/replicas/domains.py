"""What fails together: nodes of one owner, in one network, on one host. Counting those that do not."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from shrk_coordinator.state.replicas.facts import NodeFacts

#: A node's owner, network and host, each named so that no two that differ are called the same.
Domains = tuple[str, str, str]
#: How many distinct owners, networks and hosts; the greater, compared in this order, the better.
Spread = tuple[int, int, int]


class Level(IntEnum):
    """Kinds of failure domains, the one that is worth most first: owners share neither power nor mistakes."""

    OWNER = 0
    NETWORK = 1
    HOST = 2

    @property
    def word(self) -> str:
        """As people read it."""
        return self.name.lower()


def domains_of(node: NodeFacts) -> Domains:
    """Where it belongs. Machines of two networks may well have the same name."""
    return node.owner, node.network, f"{node.network}/{node.host}"


class Tally:
    """Distinct domains of some nodes, kept as nodes come and go."""

    __slots__ = ("_counts", "nodes")

    def __init__(self, nodes: Iterable[Domains] = ()) -> None:
        self.nodes = 0
        # Plain dictionaries: a tally is made anew for each model that is looked at.
        self._counts: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
        for domains in nodes:
            self.add(domains)

    def add(self, domains: Domains) -> None:
        """One node more."""
        self.nodes += 1
        owners, networks, hosts = self._counts
        owner, network, host = domains
        owners[owner] = owners.get(owner, 0) + 1
        networks[network] = networks.get(network, 0) + 1
        hosts[host] = hosts.get(host, 0) + 1

    def remove(self, domains: Domains) -> None:
        """One node less."""
        self.nodes -= 1
        for counts, name in zip(self._counts, domains, strict=True):
            if counts[name] == 1:
                del counts[name]
            else:
                counts[name] -= 1

    def count(self, level: Level) -> int:
        """Distinct domains of this kind."""
        return len(self._counts[level])

    def has(self, level: Level, domains: Domains) -> bool:
        """Whether a node of this domain is among them."""
        return domains[level] in self._counts[level]

    def gain(self, domains: Domains) -> Spread:
        """What one more node would add."""
        owners, networks, hosts = self._counts
        return int(domains[0] not in owners), int(domains[1] not in networks), int(domains[2] not in hosts)

    def spread(self, most: int) -> Spread:
        """Distinct domains of each kind; more than `most` of a kind are worth no more than `most`."""
        owners, networks, hosts = self._counts
        return min(most, len(owners)), min(most, len(networks)), min(most, len(hosts))

    def spread_without(self, domains: Domains, most: int) -> Spread:
        """The spread if one of them went."""
        lost = [int(counts[name] == 1) for counts, name in zip(self._counts, domains, strict=True)]
        owners, networks, hosts = (len(counts) - less for counts, less in zip(self._counts, lost, strict=True))
        return min(most, owners), min(most, networks), min(most, hosts)

    def level(self, wanted: int) -> Level:
        """The first kind of which there are enough; the last where there are enough of none."""
        return next((level for level in Level if self.count(level) >= wanted), Level.HOST)
