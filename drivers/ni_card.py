"""An NI-DAQmx card on a bench of levels: it drives, it is programmed, and it reads, all by one clock; drivers/nidaqmx.py.

    [instruments.card]
    use = "drivers.ni_card:NICard"
    resource = "local"                  the driver of this computer; or "computer:port" of an NI gRPC Device Server
    outputs = ["cDAQ1Mod1/ao0:6"]       inputs = ["cDAQ1Mod2/ai0"]

A batch is one buffer: the bench hands the rows over as a list, those of channels that are programmed with them. The card ramps
from row to row by itself, so its port on the bench has no largest step. NI-DAQmx gives a card to one process: the guardian
opens it when this process is gone. Tasks that are still there, as an NI gRPC Device Server keeps them, are ended by a reset of
the card.
Outputs are read back where `read_back` names inputs that see them; else that they were played is all that is known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from drivers.nidaqmx import NIDAQmx, Terminal
from drivers.package_talk import anew
from drivers.packages import needed
from drivers.read_back import ForeignChange, Value
from drivers.safe import SafeState, Step, Talk
from drivers.scpi import Expect, Identity
from hil.device import Port
from hil.errors import ContractError, OpenFailed, WrongInstrument
from hil.settings import Count, NotNegative, Positive

LOCAL = "local"


class NICard(NIDAQmx):
    """A Source, a Meter and a Sweeper of drivers/vector/roles.py. The constructor brings the outputs to rest.

    Arguments as of NIDAQmx, and

    Args:
        address: "local", or "computer:port" of an NI gRPC Device Server: `resource` in a bench file.
        pause_s: `settle_s` of NIDAQmx, from the end of a ramp to the samples that are averaged.
        called: its name on the bench.
        expect: who must answer: product type and serial number.
        beat: called with every use.

    Raises:
        WrongInstrument: another card answers.
    """

    def __init__(
        self,
        address: str,
        outputs: Sequence[str],
        inputs: Sequence[str],
        low_v: float | tuple[float, ...],
        high_v: float | tuple[float, ...],
        *,
        max_step_v: float | tuple[float, ...] | None = None,
        slew_v_per_s: float | tuple[float, ...] | None = None,
        rest_v: float | tuple[float, ...] | None = None,
        rate_hz: Positive = 10_000.0,
        pause_s: NotNegative = 1e-3,
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
        called: str = "card",
        expect: Expect | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._address, self._called, self._beat, self._closed = address, called, beat, False
        self._how: dict[str, Any] = {
            "outputs": list(outputs), "inputs": list(inputs), "low_v": low_v, "high_v": high_v, "max_step_v": max_step_v,
            "slew_v_per_s": slew_v_per_s, "rest_v": rest_v, "rate_hz": rate_hz, "pause_s": pause_s, "average": average,
            "reading_low_v": reading_low_v, "reading_high_v": reading_high_v, "reading_unit": reading_unit,
            "reading_scale": reading_scale, "terminal": terminal, "start_trigger": start_trigger,
            "sample_clock": sample_clock, "read_back": list(read_back), "tolerance_v": tolerance_v,
        }  # fmt: skip
        card = {("settle_s" if key == "pause_s" else key): value for key, value in self._how.items()}
        super().__init__(**card, grpc="" if address == LOCAL else address)
        limits, port = self.spec.inputs, self.spec.outputs
        self.drive = Port(f"{called} outputs", limits.low, limits.high, "V", limits.size, rest=limits.rest)
        self.reading = Port(f"{called} inputs", port.low, port.high, port.unit, port.size)
        self._read: list[float] | None = None  # what the last row gave, until it was read
        try:
            self.identity = self._who()
            self._same(expect or Expect())
        except BaseException:
            self._drop()
            raise

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the outputs, in the order of `outputs`; inputs count in the same way."""
        return tuple(range(1, len(self._outputs) + 1))

    @property
    def simulated(self) -> bool:
        """True of a card that NI-DAQmx, or a virtual bench, simulates."""
        return self.spec.provenance == "twin"

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self._called} {self.identity.serial}"

    def _card(self) -> Any:
        return self._ni.system.Device(self._outputs[0].partition("/")[0], grpc_options=self._options())

    def _who(self) -> Identity:
        with self._mapped("asking the card who it is", OpenFailed):
            card = self._card()
            return Identity("National Instruments", card.product_type, f"{card.serial_num:X}", "")

    def _same(self, expect: Expect) -> None:
        if not expect.admits(self.identity):
            raise WrongInstrument(
                "another card answers", where=f"{self._called} at {self._address}", got=str(self.identity), allowed=str(expect),
                outputs="at rest", todo="correct the names of outputs, or who is expected there",
            )  # fmt: skip

    # ---- what it holds and reads ------------------------------------------------------------------------------------------

    def levels(self, values: Sequence[float]) -> None:
        """Go to these V, and read what is there then. Raises: OutOfRange: nothing was sent; as NIDAQmx.forward."""
        self._read = self.sweep([values], 0.0)[0]

    def read(self) -> list[float]:
        """Return what the inputs gave at the levels, or measure anew if that was read."""
        found, self._read = self._read, None
        if found is None:
            self.prepare()
            assert self._at is not None  # prepare has seen to it
            (found,) = self.sweep([self._at.tolist()], 0.0)
        return found

    def sweep(self, rows: Sequence[Sequence[float]], settle_s: float) -> list[list[float]]:
        """Play rows, (rows, outputs) in V, and read each after `settle_s`, or after its own settling: (rows, inputs)."""
        if self._closed:
            raise ContractError("the card is closed", where=self._called, outputs="at rest", todo="make a new one")
        self._beat()
        self._settle = max(self._settle, math.ceil(settle_s * self._rate_hz - 1e-9))
        self._read = None
        wanted = torch.tensor([list(row) for row in rows], dtype=torch.float32)
        self.spec.inputs.check(wanted)  # before the outputs go to rest, where it is not known what they hold
        self.prepare()
        found: list[list[float]] = self.forward(wanted).tolist()
        return found

    # ---- what a PanelWatch asks -------------------------------------------------------------------------------------------

    @property
    def panel(self) -> NICard:
        """The card says what it holds by itself, where `read_back` sees it."""
        return self

    def held(self) -> Mapping[str, Value]:
        """Compare the outputs, as inputs see them, with what was played last; without `read_back` nothing is known of them."""
        if not self._read_back or self._at is None or not self._tasks:
            return {"levels": "not read back"}
        self._beat()
        with self._mapped("reading the outputs back"):
            far = np.abs(self._measured_back() - self._at).max()
        return {"levels": "same" if far <= self._tolerance_v else "other"}

    def settle(self) -> None:
        """Do nothing: what was played is what is due."""

    def findings(self) -> list[ForeignChange]:
        """Find out whether the outputs hold something else, as after a power cut of the chassis."""
        return [ForeignChange("setting", "levels are others")] if self.held()["levels"] == "other" else []

    def lock_out(self) -> str:
        """Return why it cannot be locked: it has no front panel."""
        return "it has no front panel"

    # ---- its safe state, and the rungs of recovery ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Bring the outputs to rest, if it is not known what they hold."""
        if self._at is None or not self._tasks:
            self.safe()

    def output(self, on: bool) -> None:
        """Do nothing, or bring the outputs to rest: they are on as long as the card has power."""
        if on and self._closed:
            raise ContractError("the card is closed", where=self._called, got="output on", outputs="being brought to rest")
        if not on:
            self.safe()

    def safe_state(self) -> SafeState:
        """Describe it: all outputs at rest, of the card that answered."""
        who = self.identity
        return SafeState(
            self._called, self._address, f"{__name__}:over", Expect(who.maker, who.model, who.serial),
            (Step("rest=true", "rest", ("1", "true")),), how=json.dumps({"address": self._address, **self._how}), shared=False,
            outputs=f"unknown; if it still has power, {self._low.min():g} to {self._high.max():g} V", imports=("nidaqmx",),
            read_back=bool(self._how.get("read_back")),
        )  # fmt: skip

    def forget(self) -> None:
        """Bring the outputs to rest before the next row."""
        self._at, self._read = None, None

    def clear(self) -> None:
        """Forget what the outputs hold: a buffer may have been half played."""
        self.forget()

    def reopen(self) -> None:
        """Give the card back, and open it again with the next row."""
        self.forget()
        self._drop()

    def reset(self) -> None:
        """Bring the outputs to rest, whatever they hold."""
        self.safe()

    def identify(self) -> str:
        """See that the same card answers; return who it is. Raises: WrongInstrument, OpenFailed."""
        before, self.identity = self.identity, self._who()
        self._same(Expect(before.maker, before.model, before.serial))
        return str(self.identity)

    def close(self) -> None:
        """Bring the outputs to rest, and give the card back. May be called twice. Raises: UnsafeOutputs."""
        self._closed = True
        super().close()


class _Cards:
    """The package as PackageTalk uses it: "rest" is all that is ever asked for."""

    def begin(self, name: str, table: Mapping[str, Any]) -> tuple[Any, bool]:
        """Open a card, whose outputs go to rest by that; tasks of a process that is gone are ended first."""
        settings: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in table.items()}
        try:
            card = NICard(**settings, called=name)
        except OpenFailed:
            _reset(settings)
            card = NICard(**settings, called=name)
        return card, card.simulated

    def who(self, instrument: Any) -> Identity:
        """Ask a card who it is."""
        found: Identity = instrument.identity
        return found

    def put(self, instrument: Any, parameter: str, value: Any) -> None:
        """Bring the outputs to rest."""
        instrument.safe()

    def get(self, instrument: Any, parameter: str) -> Any:
        """Return True: safe() raises where the outputs are not at rest."""
        return True

    def close(self, instrument: Any) -> None:
        """Bring the outputs to rest, and give the card back."""
        instrument.close()

    def release(self, instrument: Any) -> None:
        """Give the card back."""
        instrument._drop()


def _reset(settings: Mapping[str, Any]) -> None:
    ni: Any = needed("nidaqmx", "nidaqmx")
    address = settings["address"]
    options = None
    if address != LOCAL:
        options = ni.GrpcSessionOptions(needed("grpc", "nidaqmx").insecure_channel(address), "")
    with suppress(ni.errors.Error):  # what matters is whether the card opens then
        ni.system.Device(settings["outputs"][0].partition("/")[0], grpc_options=options).reset_device()


@contextmanager
def over(state: SafeState) -> Iterator[Talk]:
    """Open the card of `state`; see drivers.package_talk.anew."""
    with anew(_Cards(), state) as talk:
        yield talk
