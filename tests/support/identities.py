"""Identities of nodes whose coordinator does not run."""

from __future__ import annotations

from pathlib import Path

from shrk_coordinator.control_plane.authority import Authority
from shrk_node_agent.link.identity import Identity, new_identity
from support.certificates import csr_for, key_pem, p256
from support.raw_coordinator import unix_ms


def an_identity(folder: Path, address: str = "tcp://127.0.0.1:9100") -> Identity:
    """One that is valid now; the authority that signed it keeps its key in `folder`."""
    authority, key = Authority.open(folder, unix_ms), p256()
    return new_identity(
        node_id="node_a",
        key_pem=key_pem(key),
        certificate_pem=authority.sign_node(csr_for(key), "node_a", unix_ms()).pem.encode(),
        ca_pem=authority.ca_pem.encode(),
        link_addresses=(address,),
        controller=address,
    )
