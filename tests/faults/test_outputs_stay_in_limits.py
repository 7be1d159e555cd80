"""However a shot fails, no output leaves its limits: random schedules of faults, the simulated connectors watched all along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.links.visa_link import VisaLink
from drivers.waveform.device import Waveform, WaveformSettings
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient
from hil.errors import HilError, UnsafeOutputs
from sim_devices.bench.control import ControlClient
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import RunningBench, build

LOW_V, HIGH_V = -1.5, 2.5  # not symmetric, so that a lost offset or a lost sign would show
SHOTS = 6
BOTH = (
    "drop",
    "truncate",
    "pad",
    "flip",
    "garbage",
    "duplicate",
    "reset",
    "half_close",
    "mangle",
    "flood",
    "reboot",
    "stale",
    "swap",
)
SCOPE = ("holes", "saturation", "stuck", "missed_trigger", "sentinel")
SHORT = {"stale": {"seconds": 0.1}, "reboot": {"seconds": 0.05}}


@pytest.fixture(scope="module")
def bench() -> Iterator[RunningBench]:
    boxes = (
        VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600", {}),
        VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision", {}),
    )
    wire = VirtualWire("awg", "scope", Part("sim_devices.mach_zehnder:MachZehnder", {"phase_rad": -1.2}), delay_s=12.4e-9)
    with build(VirtualBench(boxes, (wire,), transport="both")) as running:
        yield running


schedules = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["awg", "scope"]), st.sampled_from(BOTH), st.integers(0, 60), st.integers(1, 3)),
        st.tuples(st.just("scope"), st.sampled_from(SCOPE), st.integers(0, SHOTS), st.integers(1, 3)),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=schedules, sockets=st.booleans())
def test_no_fault_drives_an_output_out_of_its_limits(
    bench: RunningBench, schedule: list[tuple[str, str, int, int]], sockets: bool
) -> None:
    resources = bench.sockets if sockets else bench.resources
    with ControlClient(*bench.control.address) as control:
        control.heal()
        for box, kind, after, times in schedule:
            control.fault(box, kind, after=after, times=times, **SHORT.get(kind, {}))
        with suppress(HilError):
            driven(resources)
        control.heal()
        switched_off(resources)
        for output in control.extremes().get("awg", {}).values():  # type: ignore[attr-defined]
            assert LOW_V - 1e-3 <= output["low_v"] <= output["high_v"] <= HIGH_V + 1e-3
        assert all(not output["on"] for output in control.outputs()["awg"].values())  # type: ignore[attr-defined]


def driven(resources: dict[str, str]) -> None:
    rng = torch.Generator().manual_seed(1)
    generator = Keysight33600(VisaLink(resources["awg"], timeout_s=0.15), low_v=LOW_V, high_v=HIGH_V)
    scope = InfiniiVision(VisaLink(resources["scope"], timeout_s=0.15), range_v=0.5, offset_v=0.18)
    inner = Waveform(generator, scope, WaveformSettings(trigger_timeout_s=0.1), "twin")
    device = resilient(inner, lambda inner: Ladder(inner, Patience(1.0)))
    try:
        for _ in range(SHOTS):
            device.forward(LOW_V + (HIGH_V - LOW_V) * torch.rand((4, 16), generator=rng))
    finally:
        device.close()


def switched_off(resources: dict[str, str]) -> None:
    """What a guardian or the next start does where a fault kept the program from it."""
    with suppress(UnsafeOutputs):
        Keysight33600(VisaLink(resources["awg"]), low_v=LOW_V, high_v=HIGH_V).close()
