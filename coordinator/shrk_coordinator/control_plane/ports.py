"""Opening a port for nodes, and what an operator is told where that cannot be."""

from __future__ import annotations

import grpc
import grpc.aio

from shrk_contract.trouble import Trouble
from shrk_coordinator.settings import Address


class PortBusy(Trouble):
    """Another process listens there. `str()` says what to do."""

    def __init__(self, what: str, why: str, option: str) -> None:
        """`what` cannot be, such as "nodes cannot be heard on 0.0.0.0:9100"."""
        super().__init__(f"{what}: {why}. Stop the other process, or choose another: {option} HOST:PORT")


async def start(
    server: grpc.aio.Server, listen: Address, credentials: grpc.ServerCredentials, cannot: str, option: str
) -> int:
    """Start serving; the port is told because 0 may have been asked for. Raises PortBusy with these words."""
    try:
        port = server.add_secure_port(str(listen), credentials)
    except RuntimeError as error:
        why = "the port is taken, or the address is not this machine's"
        raise PortBusy(f"{cannot} on {listen}", why, option) from error
    await server.start()
    return port
