"""Instruments of packages that know `set` and `get` alone, as a Device: K parameters are set, L are read, row after row.

    for each row    go      from what the K parameters hold, one step every step_s: |step_k| <= min(max_step_k, slew_k step_s)
                    settle  wait settle_s
                    read    the L parameters, `averages` times, averaged

A parameter is named "instrument.parameter", as the package calls it. The instruments live in the process of the device, and
their package gives them to nobody else, so the device lives in a host.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivers.packages import Package
from hil.device import Port, Provenance, Spec
from hil.errors import UNTOUCHED, ConfigError, ContractError, HilError, InstrumentError, NotAReading, UnsafeOutputs
from hil.foreign import foreign
from hil.port import each
from hil.settings import Count, NotNegative, Positive
from hil.slew import Slew

Limits = float | tuple[float, ...]
Values = NDArray[np.float64]


class Parameters:
    """The Device; a subclass says by `package` how to work the instruments.

    Args:
        instruments: name -> { of = "module:Class", and what that takes }.
        drive, read: "instrument.parameter" of each input and output, in order.
        low, high: limits of the inputs, one for all or one for each, as each of these numbers.
        reading_low, reading_high: what the outputs can be.
        unit, reading_unit: as the package has them.
        max_step: largest step of an input; None: any.
        slew_per_s: its largest rate; None: any.
        rest: what the inputs go to when the device is made safe; None: 0, or the limit next to it.
        settle_s: from the last step to the readings.
        step_s: time between two steps.
        averages: readings of a parameter that are averaged.
        hold: "instrument.parameter" -> value, set in this order before the first row, "output" last for example.
        safe: the same, set in this order when the device is made safe, after the inputs went to rest.
        tolerance: how far from its value what was made safe may be read back, in its unit.

    Raises:
        ConfigError: no such instrument, or parameter. InstrumentError: the package raised an exception.
        UnsafeOutputs: it cannot be made safe.
    """

    package: ClassVar[Package]

    def __init__(
        self,
        instruments: Mapping[str, Any],
        drive: Sequence[str],
        read: Sequence[str],
        low: Limits,
        high: Limits,
        reading_low: float,
        reading_high: float,
        *,
        unit: str = "V",
        reading_unit: str = "V",
        max_step: Limits | None = None,
        slew_per_s: Limits | None = None,
        rest: Limits | None = None,
        settle_s: NotNegative = 0.0,
        step_s: Positive = 5e-3,
        averages: Count = 1,
        hold: Mapping[str, Any] = {},
        safe: Mapping[str, Any] = {},
        tolerance: Positive = 1e-6,
    ) -> None:
        self._drive, self._read = tuple(drive), tuple(read)
        _check_names(self._drive, {"hold": hold, "safe": safe})
        self._settle_s, self._step_s, self._averages = settle_s, step_s, averages
        self._safe_values, self._tolerance = dict(safe), tolerance
        inputs = Port("parameters", low, high, unit, len(self._drive), max_step=max_step, slew_per_s=slew_per_s, rest=rest)
        outputs = Port("readings", reading_low, reading_high, reading_unit, len(self._read))
        most = inputs.step_limit(step_s)
        self._most = np.full(len(self._drive), np.inf) if most is None else np.asarray(each(most, inputs.size))
        self._low, self._high = (np.asarray(each(limit, inputs.size)) for limit in (inputs.low, inputs.high))
        self._rest = inputs.resting().double().numpy().clip(self._low, self._high)
        self._opened: dict[str, Any] = {}
        self._at: Values | None = None  # what the inputs hold; None: not known
        self._closing = ExitStack()
        with ExitStack() as undo:
            undo.push(self._closing)
            simulated = [self._open(name, table) for name, table in instruments.items()]
            for name in (*self._drive, *self._read, *hold, *safe):
                self._of(name)
            provenance: Provenance = "twin" if all(simulated) else "real"
            self._spec = Spec(inputs, outputs, provenance=provenance)
            self.safe()
            undo.callback(self.safe)
            for name, value in hold.items():
                self._put(name, value)
            undo.pop_all()

    def _open(self, name: str, table: Mapping[str, Any]) -> bool:
        with self._mapped(name):
            self._opened[name], simulated = self.package.begin(name, table)
        self._closing.callback(self.package.close, self._opened[name])
        return simulated

    # ---- what a Device is -------------------------------------------------------------------------------------------------

    @property
    def spec(self) -> Spec:
        """Parameters that are set, and that are read."""
        return self._spec

    @property
    def slew(self) -> Slew:
        """Steps of the drive: each row is reached in steps that are allowed."""
        return Slew("ramps", self._settle_s)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, K) -> (batch, L), in the units of the ports.

        Raises:
            OutOfRange: before anything is sent. InstrumentError: the package raised an exception. NotAReading: a reading is
            no finite number.
        """
        self._spec.inputs.check(x)
        if not self._opened or x.ndim != 2:
            raise ContractError(
                "a batch of rows is needed" if self._opened else "this device is closed", where="parameters",
                got=f"shape {tuple(x.shape)}", allowed="(batch, parameters)", outputs="as they were",
            )  # fmt: skip
        answers = np.empty((len(x), len(self._read)))
        for number, row in enumerate(x.detach().to("cpu", torch.float64).numpy()):
            self._go(row.clip(self._low, self._high))  # 0.6 in float32 is 2e-8 above 0.6
            if self._settle_s:
                time.sleep(self._settle_s)
            answers[number] = np.mean([[self._get(name) for name in self._read] for _ in range(self._averages)], 0)
        return torch.from_numpy(answers.astype(np.float32))

    def safe(self) -> None:
        """Let the inputs go to rest, then set what `safe` says; read all of it back.

        Raises:
            UnsafeOutputs: it could not be set, or something else is read back.
        """
        wanted = {**dict(zip(self._drive, self._rest.tolist(), strict=True)), **self._safe_values}
        try:
            self._at = None  # as they are found
            self._go(self._rest)
            for name, value in self._safe_values.items():
                self._put(name, value)
            found = {name: self.package.get(*self._of(name)) for name in wanted}
        except HilError as error:
            raise UnsafeOutputs(
                f"the parameters could not be made safe: {error.what}", where=error.where, got=error.got,
                outputs="not known to be safe", todo="switch the outputs off by hand",
            ) from error  # fmt: skip
        wrong = [f"{name} = {found[name]}" for name, value in wanted.items() if not self._same(found[name], value)]
        if wrong:
            raise UnsafeOutputs(
                "parameters are not what they were set to", where="parameters", got=", ".join(wrong)[:300],
                allowed=", ".join(f"{name} = {value}" for name, value in wanted.items())[:300], outputs="not known to be safe",
                todo="switch the outputs off by hand",
            )  # fmt: skip

    def close(self) -> None:
        """Make safe, and give the instruments back. May be called twice. Raises: UnsafeOutputs."""
        if self._opened:
            with self._closing:
                try:
                    self.safe()
                finally:
                    self._opened = {}

    # ---- the parameters ---------------------------------------------------------------------------------------------------

    def _go(self, row: Values) -> None:
        """Go to a row, in steps."""
        if self._at is None:
            self._at = np.array([self._get(name) for name in self._drive]).clip(self._low, self._high)
        start, self._at = self._at, None
        steps = max(1, math.ceil(float((np.abs(row - start) / self._most).max(initial=0.0)) - 1e-9))
        for step in range(1, steps + 1):
            if step > 1:
                time.sleep(self._step_s)
            values = row if step == steps else start + (row - start) * (step / steps)
            for name, value in zip(self._drive, values.tolist(), strict=True):
                self._put(name, value)
        self._at = row

    def _of(self, name: str) -> tuple[Any, str]:
        """Instrument and parameter. Raises: ConfigError: no such instrument."""
        instrument, dot, parameter = name.partition(".")
        if instrument not in self._opened or not dot:
            raise ConfigError(
                "a parameter of no instrument", where="[device]", got=name,
                allowed=", ".join(f"{one}.…" for one in self._opened) or "instruments",
            )  # fmt: skip
        return self._opened[instrument], parameter

    def _put(self, name: str, value: Any) -> None:
        with self._mapped(name):
            self.package.put(*self._of(name), value)

    def _get(self, name: str) -> float:
        with self._mapped(name):
            found = float(self.package.get(*self._of(name)))
        if not math.isfinite(found):
            raise NotAReading("a reading that is no number", where=name, got=str(found))
        return found

    def _same(self, found: Any, wanted: Any) -> bool:
        if isinstance(wanted, bool | str):
            return bool(found == wanted)
        return isinstance(found, int | float | np.number) and abs(float(found) - wanted) <= self._tolerance

    @contextmanager
    def _mapped(self, name: str) -> Iterator[None]:
        with foreign(name, InstrumentError, "as they were", "see what its package says of this exception"):
            yield


def _check_names(drive: Sequence[str], tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a parameter that is driven twice, or driven and set besides. Raises: ConfigError: nothing was opened."""
    twice = [name for name in drive if drive.count(name) > 1]
    if twice:
        raise ConfigError(
            "a parameter is driven by two inputs", where="drive", got=twice[0], allowed="each parameter once",
            outputs=UNTOUCHED, todo="remove one of them",
        )  # fmt: skip
    for table, values in tables.items():
        both = [name for name in values if name in drive]
        if both:
            raise ConfigError(
                f"a parameter is driven, and set by {table} besides", where=table, got=f"{both[0]} = {values[both[0]]!r}",
                allowed="parameters that are not in drive; inputs go to rest by themselves", outputs=UNTOUCHED,
                todo=f"remove it from {table}; rest says where inputs go",
            )  # fmt: skip
