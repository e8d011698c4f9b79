"""The port that nodes dial: what is read of a connection. Its life is tried in `tests/integration/test_links.py`."""

from __future__ import annotations

import pytest

from shrk_coordinator.control_plane.link_server import host_of


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"),
        ("ipv6:[::1]:5000", "::1"),
        ("unix:/run/x.sock", ""),
        ("", ""),
    ],
)
def test_the_host_of_a_peer_is_told_without_its_port(peer: str, host: str) -> None:
    assert host_of(peer) == host
