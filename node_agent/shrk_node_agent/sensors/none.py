"""A machine without GPUs that we know of: nothing to read, no heat, nothing to set."""

from __future__ import annotations

from collections.abc import Sequence

from shrk_node_agent.sensors.gpu import Abilities, Actuated, Capabilities, VisibleDevicesWrong
from shrk_node_agent.state.devices import DevicesRefused, GpuReading, visible

_NOTHING_TO_SET = Actuated(False, "this node runs without a GPU")


class NoGpus:
    """Always empty; see `Gpus`. Raises VisibleDevicesWrong where the owner names a GPU all the same."""

    def __init__(self, visible_devices: Sequence[str] = ()) -> None:
        found = visible(visible_devices, ())
        if isinstance(found, DevicesRefused):
            raise VisibleDevicesWrong(found.reason)

    async def read(self) -> tuple[GpuReading, ...]:
        """Nothing."""
        return ()

    async def set_power_limit(self, _uuid: str, _watts: float) -> Actuated:
        """Nothing to set."""
        return _NOTHING_TO_SET

    async def set_target_temperature(self, _uuid: str, _celsius: float) -> Actuated:
        """Nothing to set."""
        return _NOTHING_TO_SET

    def abilities(self, _uuid: str) -> Abilities:
        """None."""
        return Abilities()

    def capabilities(self) -> Capabilities:
        """None."""
        return Capabilities("none")

    async def close(self) -> None:
        """Nothing to let go."""
