"""What NVML's answers mean, in words and with remedies: why a call failed, what holds a GPU's clocks down."""

from __future__ import annotations

from typing import Any

from shrk_node_agent.state.devices import (
    HARDWARE_SLOWDOWN,
    HARDWARE_THERMAL,
    POWER_BRAKE,
    POWER_CAP,
    SOFTWARE_THERMAL,
)

#: Bits of the clocks' event reasons. "GPU is idle" (1) holds nothing down.
_THROTTLE = {
    0x2: "application clocks",
    0x4: POWER_CAP,
    0x8: HARDWARE_SLOWDOWN,
    0x10: "sync boost",
    0x20: SOFTWARE_THERMAL,
    0x40: HARDWARE_THERMAL,
    0x80: POWER_BRAKE,
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}
_IDLE = 0x1

#: What a driver answers for ever, by the names of NVML's errors, with our words for it.
FOR_EVER = {
    "NOT_SUPPORTED": "not supported by this GPU or driver",
    "FUNCTION_NOT_FOUND": "this driver is too old for it",
    "ARGUMENT_VERSION_MISMATCH": "this driver is too old for it",
    "DEPRECATED": "this driver has given it up",
    "NO_PERMISSION": "the driver does not permit it to this user",
    "INVALID_ARGUMENT": "not supported by this GPU or driver",
}
#: The GPU cannot be used until it is reset or the machine restarted.
LOST = ("GPU_IS_LOST", "RESET_REQUIRED", "IRQ_ISSUE", "INSUFFICIENT_POWER", "GPU_NOT_FOUND")
#: Nothing can be asked of any GPU, with the remedy.
GONE = {
    "LIBRARY_NOT_FOUND": 'libnvidia-ml.so.1 is not found: install NVIDIA\'s driver, or set gpu = "none" to serve '
    "without a GPU",
    "DRIVER_NOT_LOADED": 'NVIDIA\'s driver is installed and not loaded: try `modprobe nvidia`, or set gpu = "none" to '
    "serve without a GPU",
    "LIB_RM_VERSION_MISMATCH": "NVIDIA's driver was updated and the old one still runs: restart the machine",
    "UNINITIALIZED": "NVIDIA's driver has forgotten us: it is being asked anew",
}


def throttle_words(bits: int) -> tuple[str, ...]:
    """Why clocks are held down, in words; bits that are newer than this table by their number."""
    found = [1 << place for place in range(bits.bit_length()) if bits >> place & 1 and 1 << place != _IDLE]
    return tuple(_THROTTLE.get(bit, f"reason {bit:#x}") for bit in found)


def code_of(nvml: Any, error: Any) -> str:
    """The name of an NVML error without its prefix; empty for one that means nothing in particular here."""
    names = (*FOR_EVER, *LOST, *GONE)
    return next((name for name in names if getattr(nvml, f"NVML_ERROR_{name}", None) == error.value), "")


def why_gone(nvml: Any, error: Any) -> str:
    """Why nothing can be asked of any GPU, and what to do."""
    remedy = "see the kernel's log; restarting the machine mends most of these"
    return GONE.get(code_of(nvml, error)) or f"NVIDIA's driver does not work ({error}): {remedy}"
