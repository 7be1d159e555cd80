"""One twin, asked directly and asked through drivers, VISA, bytes and simulated instruments: with noise off both agree to one
step of the analogue-to-digital converter. And what the drivers do when the bench refuses, lies or dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import cast

import pytest
import torch
from scripted_link import MessageLink

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.links.visa_link import VisaLink
from drivers.waveform.device import Waveform, WaveformSettings
from hil.conformance import check_device
from hil.errors import Disconnected, InstrumentError, LinkError, MeasurementError, OutOfRange, Saturated, UnsafeOutputs
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire, assemble
from sim_devices.bench.served import ServedBench, spawn
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

RANGE_V, OFFSET_V, ADC_BITS, DAC_BITS = 0.5, 0.18, 10, 12
STEP_V = RANGE_V / (1 << ADC_BITS)
DRIVE_V = 4.0
DELAY_S = 12.4e-9
NODE = {"v_pi_v": 3.52, "phase_rad": -1.2, "noise": 0.0}


def description(transport: str = "all") -> VirtualBench:
    boxes = (
        VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600", {"dac_bits": DAC_BITS}),
        VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision", {"adc_bits": ADC_BITS}),
    )
    wire = VirtualWire("awg", "scope", Part("sim_devices.mach_zehnder:MachZehnder", NODE), delay_s=DELAY_S)
    return VirtualBench(boxes, (wire,), transport=transport)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bench() -> Iterator[ServedBench]:
    with spawn(description()) as served:
        yield served


@contextmanager
def opened(
    resources: dict[str, str],
    settings: WaveformSettings | None = None,
    memory_samples: int | None = None,
    range_v: float = RANGE_V,
) -> Iterator[tuple[Waveform, CountingLink]]:
    wire = CountingLink(resources["awg"])
    generator = Keysight33600(wire, low_v=-DRIVE_V, high_v=DRIVE_V, memory_samples=memory_samples)
    scope = InfiniiVision(VisaLink(resources["scope"]), range_v=range_v, offset_v=OFFSET_V)
    device = Waveform(generator, scope, settings, provenance="twin")
    try:
        yield device, wire
    finally:
        device.close()


class CountingLink(VisaLink):
    """Counts messages, to show that a refusal sends none."""

    messages = 0

    def write(self, *parts: bytes | memoryview) -> None:
        self.messages += 1
        super().write(*parts)


def drive(batch: int, width: int) -> torch.Tensor:
    uniform = torch.rand((batch, width), generator=torch.Generator().manual_seed(5))
    return (2 * uniform - 1) * DRIVE_V


def agree(device: Waveform, x: torch.Tensor) -> None:
    twin = Simulated(MachZehnder(**NODE))
    error = (device.forward(x) - twin.forward(x)).abs()
    assert float(error.max()) <= STEP_V
    assert float(error.mean()) <= 0.4 * STEP_V  # rounding alone gives a quarter


@pytest.mark.parametrize("wire", ["resources", "vxi11", "sockets"])
def test_both_ways_agree_to_one_step(bench: ServedBench, wire: str) -> None:
    with opened(getattr(bench, wire)) as (device, _):
        assert device.spec.provenance == "twin"
        assert device.delay_s == pytest.approx(DELAY_S, abs=1e-9)
        agree(device, drive(128, 800))
        agree(device, drive(7, 100))
        assert (device.stats.shots, device.stats.records) == (2, 2)


@pytest.mark.parametrize(
    "settings",
    [
        WaveformSettings(reads_per_symbol=2),
        WaveformSettings(symbol_rate_hz=50e6, samples_per_symbol=2, reads_per_symbol=5),
        WaveformSettings(averages=3),
        WaveformSettings(symbol_rate_hz=1e6, settle=0.0),
    ],
)
def test_the_way_of_sampling_does_not_matter(bench: ServedBench, settings: WaveformSettings) -> None:
    with opened(bench.resources, settings) as (device, _):
        agree(device, drive(30, 70))


def test_a_batch_of_many_records(bench: ServedBench) -> None:
    with opened(bench.resources, memory_samples=700) as (device, _):
        agree(device, drive(31, 100))
        assert device.stats.records == 5


def test_batches_in_flight_come_back_in_order(bench: ServedBench) -> None:
    with opened(bench.resources) as (device, _):
        x = drive(40, 50)
        futures: list[Future[torch.Tensor]] = [device.submit(part) for part in x.chunk(4)]
        whole = torch.cat([future.result() for future in futures])
        assert float((whole - Simulated(MachZehnder(**NODE)).forward(x)).abs().max()) <= STEP_V


@pytest.mark.parametrize("bad", [float("nan"), DRIVE_V * 1.001, -float("inf")])
def test_what_is_out_of_limits_never_reaches_the_wire(bench: ServedBench, bad: float) -> None:
    with opened(bench.resources, WaveformSettings(width=100)) as (device, wire):
        x, sent = drive(8, 100), wire.messages
        x[3, 4] = bad
        with pytest.raises(OutOfRange):
            device.forward(x)
        with pytest.raises(OutOfRange, match="channels"):
            device.forward(drive(8, 99))
        assert wire.messages == sent
        agree(device, drive(8, 100))


def test_a_range_that_is_too_small_is_saturated_and_never_data(bench: ServedBench) -> None:
    with pytest.raises(Saturated, match="clipped"), opened(bench.resources, range_v=0.2):
        pass
    assert bench.control.outputs()["awg"]["1"]["on"] is False  # type: ignore[index]


def test_the_output_is_on_while_open_and_off_afterwards(bench: ServedBench) -> None:
    with opened(bench.resources) as (device, _):
        device.forward(drive(2, 2))
        assert bench.control.outputs()["awg"]["1"]["on"] is True  # type: ignore[index]
    assert bench.control.outputs()["awg"]["1"]["on"] is False  # type: ignore[index]


@pytest.mark.parametrize("box", ["awg", "scope"])
def test_a_rebooted_box_is_noticed_and_set_up_again(bench: ServedBench, box: str) -> None:
    """Settings and volatile memory are gone, outputs are off: no shot may pass for data."""
    with opened(bench.resources, WaveformSettings(trigger_timeout_s=0.2)) as (device, _):
        x = drive(8, 100)
        agree(device, x)
        bench.control.reboot(box)
        with pytest.raises((MeasurementError, InstrumentError, LinkError)):
            device.forward(x)
        device.clear()
        assert "was switched off and on since" in device.identify()
        device.reinstate()
        device.verify()
        agree(device, x)


def in_process() -> Waveform:
    """The same bench without a wire: messages go straight into the boxes."""
    boxes = assemble(description()).boxes
    generator = Keysight33600(MessageLink(boxes["awg"]), low_v=-DRIVE_V, high_v=DRIVE_V)
    return Waveform(
        generator, InfiniiVision(MessageLink(boxes["scope"]), range_v=RANGE_V, offset_v=OFFSET_V), provenance="twin"
    )


def test_it_keeps_the_contract_of_a_device() -> None:
    assert check_device(in_process, sent=lambda device: cast(Waveform, device).stats.records).passed


def test_a_killed_bench_is_disconnected_and_its_outputs_are_not_called_safe() -> None:
    served = spawn(description("hislip"))
    wire = VisaLink(served.resources["awg"], timeout_s=1.0, open_timeout_s=0.5)
    generator = Keysight33600(wire, low_v=-DRIVE_V, high_v=DRIVE_V)
    scope = InfiniiVision(VisaLink(served.resources["scope"], timeout_s=1.0), range_v=RANGE_V, offset_v=OFFSET_V)
    device = Waveform(generator, scope, provenance="twin")
    x = drive(8, 100)
    agree(device, x)
    served.kill()
    with pytest.raises(Disconnected) as caught:
        device.forward(x)
    assert served.resources["awg"] in str(caught.value)
    with pytest.raises(UnsafeOutputs, match="generator channel 1") as unsafe:
        device.close()
    assert "unknown" in unsafe.value.outputs
    device.close()
    served.stop()
