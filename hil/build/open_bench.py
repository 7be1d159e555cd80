"""A bench as a Device of a script's: hil.open; and what makes a script's device safe when its work ends.

Opened as for a run: guarded, its faults recovered rung by rung, its outputs off and read back when the block ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil.device import Device, Spec, program, reset
from hil.devices.functions import Functions
from hil.devices.stepped import Stepped, bare
from hil.errors import ContractError, UnsafeOutputs
from hil.foreign import foreign, said

if TYPE_CHECKING:
    from torch import Tensor

    from hil.build.node import Node
    from hil.config.bench import BenchFile
    from hil.devices.recovery import EventListener


class Bench:
    """An open bench: a Device, or a Chip where its node is an array of spiking neurons.

    Args:
        node: what was opened.
        file: the bench file.
        heard: to whom faults and recoveries are told, a list of one.
    """

    def __init__(self, node: Node, heard: list[EventListener], file: BenchFile) -> None:
        from hil.devices.meter import metered

        self.node, self.heard, self.file = node, heard, file
        self._device = None if node.source is None else metered(node.source)  # what it answers is checked
        if node.chip is not None:
            self.array = node.chip.array

    @property
    def instruments(self) -> Mapping[str, str]:
        """Name in the bench file -> maker, model, address, serial number and firmware, as a line for people."""
        return self.node.resources

    @property
    def spec(self) -> Spec:
        """Ports and provenance."""
        return self._static.spec

    def program(self, params: Tensor) -> None:
        """Set what can be programmed, (size,) of `spec.params`."""
        program(self._static, params)

    def reset(self) -> None:
        """Forget temporal state."""
        reset(self._static)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in) in the unit of the input port -> (batch, n_out) in that of the output port, float32.

        Raises:
            OutOfRange: before anything is sent.
            LinkError, InstrumentError, MeasurementError: what the recovery ladder could not put right.
        """
        return self._static.forward(x)

    def close(self) -> None:
        """Outputs off, read back; nothing can be driven afterwards. The end of the `with` block does the same."""
        self.node.rest(None)

    @property
    def _static(self) -> Device:
        if self._device is None:
            raise ContractError(
                "this bench is a chip of spiking neurons", where="hil.open", allowed="bench.array(…), hil.dense(…, bench)",
                todo="cut an array from it",
            )  # fmt: skip
        return self._device

    def __repr__(self) -> str:
        return "Bench(" + "; ".join(f"{name}: {line}" for name, line in self.instruments.items()) + ")"


def said_aloud(kind: str, **facts: object) -> None:
    """A fault or a recovery, on the terminal."""
    from hil.training.progress import telling

    for line in telling(kind, facts):
        print(line, file=sys.stderr)


@contextmanager
def open_bench_file(path: str | Path) -> Iterator[Bench]:
    """Open a bench file: the instruments of a real bench, or a virtual one that is served for as long as the block lasts.

    A guardian, a process of its own, makes the outputs safe if this program is killed or hangs: also if it leaves the bench
    unused for longer than `silence_s` in [guardian] of the file.

    Args:
        path: of the bench file.

    Yields:
        the bench: `forward`, `spec`, `instruments`; hil.dense takes it as a device.

    Raises:
        ConfigError: the file makes no sense; nothing was opened.
        RunError: another program owns an instrument.
        LinkError, InstrumentError, MeasurementError: from the instruments.
        UnsafeOutputs: also at the end of the block, if the outputs could not be verified to be off.

    Example:
        with hil.open("benches/mzm_awg_scope.toml") as bench:
            curve = bench.forward(torch.linspace(-1, 1, 201)[:, None])
    """
    from hil.build.node import resilient_node
    from hil.build.open_node import bench_node
    from hil.config.bench import read_bench

    file = read_bench(Path(path))
    heard: list[EventListener] = [said_aloud]

    def told(kind: str, **facts: object) -> None:
        heard[-1](kind, **facts)

    with ExitStack() as stack:
        yield Bench(resilient_node(bench_node(file, False, None, False, stack), told), heard, file)


def rested(device: Any, error: BaseException | None) -> None:
    """Bring the outputs of a script's device to safe, because of `error` or because its work is done.

    A device with a `safe` is brought to safe and can be driven again; any other one is closed after an error, which is the one
    way that it has, and left as it is without one.

    Raises:
        UnsafeOutputs: it failed in a way that says nothing about the outputs.
    """
    if isinstance(device, Stepped):
        rested(device.inner, error)
        if error is not None or hasattr(device.inner, "safe"):
            device.at_rest()
    elif isinstance(device, Functions):
        device.safe()
    elif isinstance(device, Bench):
        if error is not None:
            device.node.rest(error)
    else:
        act = getattr(device, "safe", None) or (device.close if error is not None else None)
        if act is not None:
            todo = "switch the outputs off at the device, and correct its safe() or close()"
            with foreign(f"device {type(device).__name__}", UnsafeOutputs, "not known to be safe", todo):
                act()


def left_safe(device: Any) -> None:
    """Bring a script's device to safe when Python ends, or close it where it has no safe(); an error is printed."""
    try:
        act = getattr(bare(device), "safe", None) or device.close
        act()
    except BaseException as error:  # noqa: BLE001 (said, which is all that can be done)
        with suppress(Exception):
            print(f"OUTPUTS NOT KNOWN TO BE SAFE: {type(error).__name__}: {said(error)}", file=sys.stderr)


def outputs_after(device: Any) -> str:
    """Return the state of the outputs once `rested` has returned, for a summary; "" for a twin in this process."""
    from sim_devices.simulated import Simulated

    device = bare(device)
    if isinstance(device, Functions):
        return device.outputs_after
    if isinstance(device, Bench):
        after = device.node.outputs_after
        return after and f"{after} when the hil.open block ends, or at once after a fault"
    if isinstance(device, Simulated):
        return ""
    return "safe, by the device's safe()" if hasattr(device, "safe") else "as the device left them; closed after a fault"


def unwrapped(device: Device) -> Device:
    """Return what is driven: of an open bench its node, which may be streaming."""
    if isinstance(device, Bench):
        return device.node.source or device
    return device
