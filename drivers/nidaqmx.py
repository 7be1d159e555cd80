"""An NI-DAQmx card as a Device: a batch is one buffer, played and sampled by the clock of the card.

    row k of a batch    | R samples: ramp | S samples: settle | A samples: average |       at f samples per s

    ramp      v[r] = before + (row - before) r / R,   r = 1 .. R
    R         the fewest samples by which any value goes to any other with |v[r] - v[r-1]| <= min(max_step, slew_per_s / f);
              0 where steps are not limited. A row so takes the same time whatever came before it
    reading   mean of the last A samples of each input, / scale

The inputs start on the start trigger of the outputs, which is routed to them. The outputs hold the last row until the next
batch. NI-DAQmx gives a card to one process, so the device lives in a host (docs/how-to/use_lab_packages.md).

Source: NI-DAQmx Python API, https://nidaqmx-python.readthedocs.io; `grpc` is its gRPC mode, with the NI gRPC Device Server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from drivers.closing import close_all
from drivers.packages import needed
from hil.device import Limit, Port, Provenance, Spec
from hil.errors import (
    ConfigError,
    ContractError,
    Disconnected,
    HilError,
    InstrumentError,
    MissedTrigger,
    OpenFailed,
    Saturated,
    UnsafeOutputs,
)
from hil.port import each
from hil.settings import Count, NotNegative, Positive
from hil.slew import Slew

Volts = NDArray[np.float64]
Terminal = Literal["default", "rse", "nrse", "diff", "pseudo_diff"]
MARGIN_S = 5.0  # over the time that a buffer takes
LATE = (-200284, -200560, -200474)  # samples not there yet, a task not done yet, an operation that took too long
ANY_LENGTH = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
BY_HAND = "switch the outputs off at the card"


class NIDAQmx:
    """Analog outputs that drive a node, and analog inputs that read it.

    Args:
        outputs: physical channels, for example ["cDAQ1Mod1/ao0:6"].
        inputs: physical channels, for example ["cDAQ1Mod2/ai0"].
        low_v, high_v: limits of the outputs, in V; as each limit and rest one number for all, or one for each output.
        max_step_v: largest step of an output from one sample to the next, in V; None: any.
        slew_v_per_s: largest rate of an output, in V/s; None: any.
        rest_v: what the outputs go to when they are made safe, in V; None: 0, or the limit next to it.
        rate_hz: samples per s, of outputs and inputs.
        settle_s: from the end of a ramp to the samples that are averaged.
        average: samples that are averaged, A.
        reading_low_v, reading_high_v: range of the inputs, in V; a sample at its end is Saturated.
        reading_unit: unit of the readings.
        reading_scale: V per `reading_unit`, for example 0.1 behind an amplifier of 0.1 V/nA.
        terminal: how the inputs are wired.
        start_trigger: terminal of the outputs' start trigger; "": that of the card of the first output.
        sample_clock: terminal of the clock that the inputs use; "": their own, of the same rate.
        read_back: inputs that see the outputs, one for each, for example ["Dev1/_ao0_vs_aognd"]; then safe outputs are
            measured, and a card that was left by a process that died is brought to rest by a ramp.
        tolerance_v: how far from rest a read-back may be.
        grpc: "computer:port" of an NI gRPC Device Server; "": the driver of this computer.

    Raises:
        ConfigError: the package is not installed, or settings make no sense.
        OpenFailed: the card does not open. UnsafeOutputs: it cannot be brought to rest.
    """

    def __init__(
        self,
        outputs: Sequence[str],
        inputs: Sequence[str],
        low_v: float | tuple[float, ...],
        high_v: float | tuple[float, ...],
        *,
        max_step_v: float | tuple[float, ...] | None = None,
        slew_v_per_s: float | tuple[float, ...] | None = None,
        rest_v: float | tuple[float, ...] | None = None,
        rate_hz: Positive = 10_000.0,
        settle_s: NotNegative = 1e-3,
        average: Count = 10,
        reading_low_v: float = -10.0,
        reading_high_v: float = 10.0,
        reading_unit: str = "V",
        reading_scale: Positive = 1.0,
        terminal: Terminal = "default",
        start_trigger: str = "",
        sample_clock: str = "",
        read_back: Sequence[str] = (),
        tolerance_v: Annotated[float, Field(gt=0)] = 0.05,
        grpc: str = "",
    ) -> None:
        self._ni: Any = needed("nidaqmx", "nidaqmx")
        self._outputs, self._inputs, self._read_back = (self._channels(names) for names in (outputs, inputs, read_back))
        self._rate_hz, self._average, self._tolerance_v, self._terminal = rate_hz, average, tolerance_v, terminal
        self._start_trigger, self._sample_clock = start_trigger, sample_clock
        drive = Port(
            "analog outputs", low_v, high_v, "V", len(self._outputs), max_step=max_step_v, slew_per_s=slew_v_per_s, rest=rest_v
        )
        ends = (reading_low_v / reading_scale, reading_high_v / reading_scale)
        reading = Port("analog inputs", *ends, reading_unit, len(self._inputs), scale=reading_scale)
        if self._read_back and len(self._read_back) != len(self._outputs):
            raise ConfigError(
                "outputs are read back by an input for each", where="read_back", got=f"{len(self._read_back)} inputs",
                allowed=f"{len(self._outputs)}, or none",
            )  # fmt: skip
        self._low, self._high = _row(drive.low, drive), _row(drive.high, drive)
        self._rest = drive.resting().double().numpy().clip(self._low, self._high)  # it was rounded to float32
        self._range = (reading_low_v, reading_high_v)
        self._ramp = _ramp(drive, rate_hz)
        self._settle = max(math.ceil(settle_s * rate_hz - 1e-9), 2 - self._ramp - average)  # a buffer has two samples or more
        self._at: Volts | None = None  # what the outputs hold; None: not known
        self._length = 0  # of the buffer that the tasks are set up for
        self._tasks: list[Any] = []
        self._channel = self._connected(grpc)
        try:
            with self._mapped("opening the card", OpenFailed):
                self._open()
            self._spec = Spec(drive, reading, provenance=self._provenance())
            self.safe()
        except BaseException:
            self._drop()
            raise

    # ---- what a Device is -------------------------------------------------------------------------------------------------

    @property
    def spec(self) -> Spec:
        """Outputs in V, inputs in their unit; "twin" for a card that NI-DAQmx simulates."""
        return self._spec

    @property
    def slew(self) -> Slew:
        """Steps of the drive: each row is reached in steps that are allowed."""
        return Slew("ramps", self._samples / self._rate_hz)

    @property
    def _samples(self) -> int:
        """Samples of a row."""
        return self._ramp + self._settle + self._average

    def forward(self, x: Tensor) -> Tensor:
        """(batch, outputs) in V -> (batch, inputs) in the unit of the readings.

        Raises:
            OutOfRange: before anything is sent. InstrumentError: the card complains. LinkError: its server is gone.
            MissedTrigger: the inputs were not started in time. Saturated: a sample at the end of the range.
        """
        self._spec.inputs.check(x)
        if x.ndim != 2:
            raise ContractError(
                "a batch of rows is needed", where=self._spec.inputs.name, got=f"shape {tuple(x.shape)}",
                allowed="(batch, outputs)", outputs="as after the last row",
            )  # fmt: skip
        if not self._tasks:
            raise ContractError("this device is closed", where=self._spec.inputs.name, outputs="at rest", todo="make a new one")
        if len(x) == 0:
            return torch.empty(0, len(self._inputs))
        if self._at is None:
            self.safe()  # after a fault
        rows = x.detach().to("cpu", torch.float64).numpy()
        # 0.6 in float32 is 2e-8 above 0.6, and is meant to be 0.6
        taken = self._played(rows.clip(self._low, self._high), self._ramp)
        shots = taken.reshape(len(self._inputs), len(rows), self._samples)[:, :, -self._average :]
        self._check_range(shots)
        return self._spec.outputs.of_own(torch.from_numpy(shots.mean(2).T.astype(np.float32)))

    def safe(self) -> None:
        """Ramp the outputs to rest, and read back that they are there.

        Where nothing is known of what they hold (a fault, or a process before that died), and no `read_back` is given, they go
        to rest in one step.

        Raises:
            UnsafeOutputs: the card did not do it, or does not say so.
        """
        try:
            with self._mapped("bringing the outputs to rest"):
                if not self._tasks:
                    self._open()
                if self._read_back:
                    self._at = self._measured_back().clip(self._low, self._high)
                known = self._at is not None
                self._at = self._rest if self._at is None else self._at
                self._played(np.stack([self._rest]), self._ramp if known else 0)
                found = self._measured_back() if self._read_back else self._rest
        except HilError as error:
            raise UnsafeOutputs(
                f"the outputs could not be brought to rest: {error.what}", where=self._where, got=error.got,
                outputs="not known to be safe", todo=BY_HAND,
            ) from error  # fmt: skip
        far = np.abs(found - self._rest) > self._tolerance_v
        if far.any():
            named = ", ".join(f"{self._outputs[k]} at {found[k]:.4g} V" for k in far.nonzero()[0])
            raise UnsafeOutputs(
                "outputs are not at rest", where=self._where, got=named, allowed=f"within {self._tolerance_v:g} V of rest",
                outputs="not known to be safe", todo=BY_HAND,
            )  # fmt: skip

    def close(self) -> None:
        """Bring the outputs to rest, and give the card back. May be called twice. Raises: UnsafeOutputs."""
        if self._tasks:
            close_all([self.safe, self._drop])

    # ---- the card ---------------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"NI-DAQmx {self._outputs[0]}"

    def _channels(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the channels by name, ranges written out."""
        return tuple(self._ni.utils.unflatten_channel_string(",".join(names)))

    def _connected(self, grpc: str) -> Any:
        """The channel to a server; None: the driver of this computer."""
        if not grpc:
            return None
        return needed("grpc", "nidaqmx").insecure_channel(grpc, options=ANY_LENGTH)

    def _options(self) -> Any:
        return None if self._channel is None else self._ni.GrpcSessionOptions(self._channel, "")

    def _provenance(self) -> Provenance:
        card = self._ni.system.Device(self._outputs[0].partition("/")[0], grpc_options=self._options())
        with self._mapped("asking the card", OpenFailed):
            return "twin" if card.is_simulated else "real"

    def _open(self) -> None:
        from nidaqmx.constants import TerminalConfiguration
        from nidaqmx.stream_readers import AnalogMultiChannelReader
        from nidaqmx.stream_writers import AnalogMultiChannelWriter

        self._length = 0
        for _ in range(2):
            self._tasks.append(self._ni.Task(grpc_options=self._options()))
        drive, read = self._tasks
        for name, low, high in zip(self._outputs, self._low, self._high, strict=True):
            drive.ao_channels.add_ao_voltage_chan(name, min_val=float(low), max_val=float(high))
        wired = getattr(TerminalConfiguration, self._terminal.upper())
        for name in self._inputs:
            read.ai_channels.add_ai_voltage_chan(name, terminal_config=wired, min_val=self._range[0], max_val=self._range[1])
        self._writer = AnalogMultiChannelWriter(drive.out_stream, auto_start=False)
        self._reader = AnalogMultiChannelReader(read.in_stream)
        self._writer.verify_array_shape = self._reader.verify_array_shape = False  # a question to the card at each shot
        card = self._outputs[0].partition("/")[0]
        self._trigger = self._start_trigger or f"/{card}/ao/StartTrigger"

    def _set_up(self, length: int) -> None:
        """Set the tasks up for buffers of `length` samples. Raises: ConfigError: outputs and inputs have other rates."""
        from nidaqmx.constants import AcquisitionType

        drive, read = self._tasks
        for task, clock in ((drive, ""), (read, self._sample_clock)):
            task.timing.cfg_samp_clk_timing(
                self._rate_hz, source=clock, sample_mode=AcquisitionType.FINITE, samps_per_chan=length
            )
        read.triggers.start_trigger.cfg_dig_edge_start_trig(self._trigger)
        rates = [task.timing.samp_clk_rate for task in (drive, read)]
        if any(abs(rate / self._rate_hz - 1) > 1e-6 for rate in rates):
            raise ConfigError(
                "the card has no such sample rate", where=self._where, got=f"rate = {self._rate_hz:g} Hz",
                allowed=f"{rates[0]:g} Hz is nearest for the outputs, {rates[1]:g} Hz for the inputs", outputs="at rest",
            )  # fmt: skip
        self._length = length

    def _played(self, rows: Volts, ramp: int) -> Volts:
        """Play rows, hardware-timed, and return what the inputs took meanwhile.

        Args:
            rows: (rows, outputs), in V, inside the limits.
            ramp: samples from each to the next.

        Returns:
            (inputs, samples).
        """
        before, self._at = self._at, None
        assert before is not None  # forward and safe see to it
        samples = buffer(rows, before, ramp, self._samples)
        length = samples.shape[1]
        drive, read = self._tasks
        taken = np.empty((len(self._inputs), length))
        due_s = length / self._rate_hz + MARGIN_S
        started = False
        try:
            with self._mapped("a shot"):
                if length != self._length:
                    self._set_up(length)
                self._writer.write_many_sample(samples, timeout=due_s)
                read.start()
                started = True
                drive.start()
                self._reader.read_many_sample(taken, length, timeout=due_s)
                drive.wait_until_done(due_s)
        except BaseException:
            self._at = self._held_after(samples, before, started)
            raise
        finally:
            with suppress(self._ni.errors.Error):  # what matters is raised above, or known: the buffer is played
                drive.stop()
                read.stop()
        self._at = samples[:, -1].copy()
        return taken

    def _held_after(self, samples: Volts, before: Volts, started: bool) -> Volts | None:
        """Say what the outputs hold after a fault: a buffer that was begun is played to its end."""
        if not started:
            return before
        drive = self._tasks[0]
        try:
            drive.wait_until_done(MARGIN_S)
            whole = drive.out_stream.total_samp_per_chan_generated == samples.shape[1]
        except self._ni.errors.Error:
            return None
        return samples[:, -1].copy() if whole else None

    def _measured_back(self) -> Volts:
        """(outputs,) in V, as inputs see them now."""
        from nidaqmx.stream_readers import AnalogMultiChannelReader

        task, found = self._ni.Task(grpc_options=self._options()), np.empty(len(self._read_back))
        try:
            for name in self._read_back:
                task.ai_channels.add_ai_voltage_chan(name, min_val=float(self._low.min()), max_val=float(self._high.max()))
            AnalogMultiChannelReader(task.in_stream).read_one_sample(found)
            return found
        finally:
            task.close()

    def _check_range(self, taken: Volts) -> None:
        low, high = self._range
        bad = (taken <= low) | (taken >= high)
        if bad.any():
            raise Saturated(
                f"{int(bad.sum())} of {bad.size} samples at the end of the range of an input", where=self._where,
                got=f"{taken.min():.4g} to {taken.max():.4g} V", allowed=f"between {low:g} and {high:g} V",
                outputs="as after the last row", todo="widen reading_low and reading_high, or lower the gain of the amplifier",
            )  # fmt: skip

    def _drop(self) -> None:
        """Give the card back, whatever it says."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            with suppress(Exception):
                task.close()

    @contextmanager
    def _mapped(self, what: str, kind: type[HilError] = InstrumentError) -> Iterator[None]:
        """Turn an error of nidaqmx into one of ours."""
        try:
            yield
        except self._ni.errors.Error as error:
            code = getattr(error, "error_code", None)
            said = " ".join(str(error).split())[:400]
            raise self._kind(error, code, kind)(
                f"{what} failed", where=self._where, got=said, outputs="as after the last row that was played",
                todo="see the error code in the documentation of NI-DAQmx",
            ) from error  # fmt: skip

    def _kind(self, error: Exception, code: int | None, kind: type[HilError]) -> type[HilError]:
        if kind is not InstrumentError:
            return kind
        if code in LATE:
            return MissedTrigger
        return Disconnected if self._channel is not None and type(error).__name__ == "RpcError" else kind


def buffer(rows: Volts, before: Volts, ramp: int, samples: int) -> Volts:
    """The samples of a batch, see the module.

    Args:
        rows: (rows, outputs).
        before: (outputs,), what the outputs hold.
        ramp: samples of a ramp, R.
        samples: of a row, the ramp included.

    Returns:
        (outputs, rows x samples), contiguous.
    """
    start = np.concatenate([before[None], rows[:-1]])
    share = np.ones(samples)
    share[:ramp] = np.arange(1, ramp + 1) / max(ramp, 1)
    played = start[:, :, None] + (rows - start)[:, :, None] * share
    played[:, :, max(ramp - 1, 0) :] = rows[:, :, None]  # not rounded to beyond a limit
    return np.ascontiguousarray(played.transpose(1, 0, 2).reshape(rows.shape[1], -1))


def _row(limit: Limit, port: Port) -> Volts:
    return np.asarray(each(limit, port.size), np.float64)


def _ramp(port: Port, rate_hz: float) -> int:
    """Samples by which any value goes to any other in steps that are allowed."""
    most = port.step_limit(1 / rate_hz)
    if most is None:
        return 0
    far = (_row(port.high, port) - _row(port.low, port)) / _row(most, port)
    return math.ceil(float(far.max()) - 1e-9)
