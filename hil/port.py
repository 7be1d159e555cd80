"""A port: a named bundle of channels, with the limits of each. Nothing outside of them is ever sent.

    low[k] <= row[k] <= high[k]                          channel k of a row; NaN is out of range
    |row[k] - before[k]| <= max_step[k]                  from the row before, or from what the channels held
    |row[k] - before[k]| <= slew_per_s[k] * row_s        where rows are row_s apart
    own[k] = scale[k] * row[k]                           the number that the device itself takes or gives

A limit is one number for all channels, or a tuple with a number for each. Messages count channels from 1, as instruments do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hil.errors import ContractError, OutOfRange

Limit = float | tuple[float, ...]
"""One number for all channels, or one for each."""
UNSENT = "unchanged; nothing was sent"
MOST_NAMED = 4  # channels in a message


@dataclass(frozen=True, slots=True)
class Port:
    """A named bundle of channels.

    Every limit is one number for all channels, or a tuple (a list, in a call) of one for each, which needs `size`.

    Args:
        name: how messages call it, for example ``"awg channel 1"``.
        low, high: limits, inclusive, in `unit`. Limits are written here once; a config may narrow, never widen.
        unit: SI, ``"V"``, ``"W"``, ``"1"``.
        size: number of channels, or None for any width (one node shared in time by all neurons).
        max_step: largest step of a channel from one row of a drive to the next, in `unit`; None: any.
        slew_per_s: largest rate of a channel, in `unit` per s; None: any.
        scale: one of `unit` in the number that the device itself takes or gives: 1000 for V on a device that counts in mV.
        rest: what the channels hold before the first shot, and when they are safe; None: 0, or the limit next to it.
        bits: 8 or 16: the device gives whole numbers of so many bits, and a value is such a number over `scale`, rounded once
            (`of_own`); a tape keeps them as such. None: it does not.

    Raises:
        ContractError: a limit is no number, has another length than `size`, or makes no sense.
    """

    name: str
    low: Limit
    high: Limit
    unit: str = "1"
    size: int | None = None
    _: KW_ONLY
    max_step: Limit | None = None
    slew_per_s: Limit | None = None
    scale: Limit = 1.0
    rest: Limit | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "max_step", "slew_per_s", "scale", "rest"):
            object.__setattr__(self, name, self._limit(name, getattr(self, name)))
        self._require("limits are the wrong way round", lambda low, high: low <= high, low=self.low, high=self.high)
        self._require("a largest step is above 0", lambda most: most > 0, max_step=self.max_step)
        self._require("a largest rate is above 0", lambda most: most > 0, slew_per_s=self.slew_per_s)
        self._require("a scale is finite, and not 0", lambda scale: scale != 0 and math.isfinite(scale), scale=self.scale)
        if self.bits is not None:
            if self.bits not in (8, 16):
                raise ContractError(
                    "whole numbers have 8 or 16 bits", where=f"port {self.name}", got=f"bits = {self.bits!s:.60}"
                )
            object.__setattr__(self, "bits", int(self.bits))
        self._require("rest is inside the limits", lambda low, at, high: low <= at <= high, low=self.low, rest=self.rest,
                      high=self.high)  # fmt: skip

    def _limit(self, name: str, value: Any) -> Limit | None:
        """Return `value` as a float or a tuple of floats: whole numbers, as of a converter, are numbers."""
        if type(value) is float:  # nearly always, and a device may make its ports anew whenever it is asked for them
            return value
        if value is None and name in ("max_step", "slew_per_s", "rest"):
            return None
        each = isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1
        if each and self.size != len(value):
            raise ContractError(
                "a limit for each channel needs as many as there are channels", where=f"port {self.name}",
                got=f"{name} of {len(value)} numbers, size {self.size}", allowed=f"size = {len(value)}, or one number for all",
            )  # fmt: skip
        return tuple(self._number(name, one) for one in value) if each else self._number(name, value)

    def _number(self, name: str, value: Any) -> float:
        try:
            if isinstance(value, bool | str | bytes):
                raise TypeError
            return float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ContractError(
                "a limit is a number", where=f"port {self.name}", got=f"{name} = {value!s:.60}", allowed="a number in its unit"
            ) from error

    def _require(self, what: str, good: Callable[..., bool], **limits: Limit | None) -> None:
        """Raises: ContractError: of a channel `good` is not true (NaN never is); nothing if a limit is not given."""
        if None in limits.values():
            return
        split = self._split(*limits.values())
        if not split and good(*limits.values()):
            return
        given = [each(value, self.size if split else None) for value in limits.values() if value is not None]
        for number, values in enumerate(zip(*given, strict=True), 1):
            if not good(*values):
                got = ", ".join(f"{name} {value}" for name, value in zip(limits, values, strict=True))
                raise ContractError(what, where=self._where([number] if split else []), got=got)

    def _split(self, *limits: Limit | None) -> bool:
        return any(isinstance(limit, tuple) for limit in limits)

    def _where(self, channels: Sequence[int]) -> str:
        """Name the port, and channels of it, counted from 1."""
        if not channels:
            return f"port {self.name}"
        named = ", ".join(map(str, channels[:MOST_NAMED]))
        more = f" and {len(channels) - MOST_NAMED} more" if len(channels) > MOST_NAMED else ""
        return f"port {self.name}, channel{'s' if len(channels) > 1 else ''} {named}{more}"

    # ---- what the limits are ----------------------------------------------------------------------------------------------

    @property
    def per_channel(self) -> bool:
        """True if a channel has a low or high of its own."""
        return isinstance(self.low, tuple) or isinstance(self.high, tuple)

    @property
    def slews(self) -> bool:
        """True if a step or a rate is limited."""
        return self.max_step is not None or self.slew_per_s is not None

    @property
    def shared_low(self) -> float:
        """The low limit of all channels. Raises: ContractError: each has its own."""
        return self._shared(self.low)

    @property
    def shared_high(self) -> float:
        """The high limit of all channels. Raises: ContractError: each has its own."""
        return self._shared(self.high)

    def _shared(self, limit: Limit) -> float:
        if not isinstance(limit, tuple):
            return limit
        if len(set(limit)) == 1:
            return limit[0]
        raise ContractError(
            "this needs channels that share their limits", where=f"port {self.name}", got="limits for each channel",
            allowed="one low and one high", outputs=UNSENT, todo="narrow all channels to what they have in common",
        )  # fmt: skip

    @property
    def span(self) -> float:
        """The range of the channel with the smallest: high - low."""
        return min(high - low for low, high in zip(each(self.low, self.size), each(self.high, self.size), strict=True))

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Low and high, () or (size,), on the device of `like` and as its dtype can hold them; not to be written to."""
        dtype = like.dtype if like.dtype.is_floating_point else torch.float64
        return _kept(self.low, dtype, like.device), _kept(self.high, dtype, like.device)

    def within(self, share: Tensor) -> Tensor:
        """Shares of the range (..., size), 0 to 1 -> values, each in the range of its own channel."""
        low, high = self.bounds(share)
        return torch.lerp(low, high, share).clamp(low, high)

    def resting(self) -> Tensor:
        """(size,), or (1,) for any width, float32: what the channels hold when nothing was sent."""
        rest = torch.zeros(self.size or 1) if self.rest is None else torch.tensor(self.rest).expand(self.size or 1)
        return rest.clamp(*self.bounds(rest))

    def own(self, values: Tensor) -> Tensor:
        """(..., size) in `unit` -> what the device itself takes, rounded once."""
        return values if self.scale == 1.0 else (values.double() * _kept(self.scale, torch.float64, values.device)).to(values)

    def of_own(self, numbers: Tensor) -> Tensor:
        """(..., size) as the device itself gives them -> in `unit`, rounded once."""
        if self.scale == 1.0:
            return numbers
        return (numbers.double() / _kept(self.scale, torch.float64, numbers.device)).to(numbers)

    def table(self) -> dict[str, Any]:
        """The port as a file holds it; what is not limited is left out, so that a file says no more than it must."""
        optional = {"max_step": None, "slew_per_s": None, "scale": 1.0, "rest": None, "bits": None}
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if name not in optional or value != optional[name]
        }

    # ---- what is refused --------------------------------------------------------------------------------------------------

    def check(self, values: Tensor) -> Tensor:
        """Return `values` (..., size) unchanged, or raise OutOfRange. NaN is out of range.

        Raises:
            OutOfRange: a value below `low`, above `high`, or NaN; or the last dimension is not `size`. Where each channel has
                limits of its own, those that are out of range are named, counted from 1.
        """
        if self.size is not None and (values.ndim == 0 or values.shape[-1] != self.size):
            raise OutOfRange(
                "wrong number of channels",
                where=f"port {self.name}",
                got=f"shape {tuple(values.shape)}",
                allowed=f"(..., {self.size})",
                outputs=UNSENT,
                todo="make the layer as wide as the device",
            )
        if values.numel() == 0:
            return values
        if self.per_channel:
            self._check_channels(values.detach())
            return values
        low, high = torch.stack(torch.aminmax(values.detach())).tolist()  # aminmax propagates NaN
        least, most = self._limits(values.dtype)
        if not (low >= least and high <= most):
            raise self._refusal(values.detach())
        return values

    def _check_channels(self, values: Tensor) -> None:
        seen = values if values.dtype.is_floating_point else values.double()
        if not torch.equal(seen.clamp(*self.bounds(seen)), seen):  # NaN is not equal to itself
            raise self._refusal(seen)

    def _limits(self, dtype: torch.dtype) -> tuple[float, float]:
        """Return the limits as `dtype` can hold them: 0.1 in float32 is 1.5e-9 above 0.1, and is meant to be in [0, 0.1]."""
        if not dtype.is_floating_point:
            return self.shared_low, self.shared_high
        return _rounded(self.shared_low, dtype), _rounded(self.shared_high, dtype)

    def _refusal(self, values: Tensor) -> OutOfRange:
        least, most = self.bounds(values)
        bad = ~((values >= least) & (values <= most))
        nans = int(torch.isnan(values).sum())
        channels = _channels(bad, self.size) if self.per_channel else []
        seen = [_spread(values[..., k - 1], self.unit) for k in channels[:MOST_NAMED]] or [_spread(values, self.unit)]
        return OutOfRange(
            f"{int(bad.sum())} of {values.numel()} values out of range",
            where=self._where(channels),
            got=f"{nans} NaN" if nans else self._said(channels, seen),
            allowed=f"{self._said(channels, [self._range(k) for k in (channels[:MOST_NAMED] or [1])])}, NaN never",
            outputs=UNSENT,
            todo=(
                "the weights or the data hold NaN: lower the learning rate, or resume from an earlier checkpoint"
                if nans
                else "lower the layer's gain, or choose overflow = 'clip' or 'fold' in its encoding"
            ),
        )

    def _range(self, channel: int) -> str:
        low, high = (each(limit, self.size)[channel - 1] for limit in (self.low, self.high))
        return f"{low:g} to {high:g} {self.unit}"

    def _said(self, channels: Sequence[int], texts: Sequence[str]) -> str:
        """Say something of each channel."""
        if len(channels) < 2:
            return texts[0]
        return "; ".join(f"channel {k}: {text}" for k, text in zip(channels[:MOST_NAMED], texts, strict=True))

    def step_limit(self, row_s: float | None = None) -> Limit | None:
        """The largest step from a row to the next, in `unit`; None: any.

        Args:
            row_s: time between rows, in s.

        Raises:
            ContractError: a rate is limited, and `row_s` is not known.
        """
        if self.slew_per_s is None:
            return self.max_step
        if row_s is None:
            raise ContractError(
                "a largest rate says nothing where the time between rows is not known", where=f"port {self.name}",
                got=f"slew_per_s = {self.slew_per_s}", allowed="a device that tells row_s, or keeps the rate by itself",
                outputs=UNSENT, todo="give max_step, or let the device have row_s, in s",
            )  # fmt: skip
        by_rate = [rate * row_s for rate in each(self.slew_per_s, self.size)]
        by_step = each(math.inf if self.max_step is None else self.max_step, self.size)
        found = tuple(map(min, by_rate, by_step))
        return found if self._split(self.slew_per_s, self.max_step) else found[0]

    def check_steps(self, values: Tensor, before: Tensor, row_s: float | None = None) -> Tensor:
        """Return `values` unchanged, or raise OutOfRange: a row steps farther from the one before it than is allowed.

        Two float32 values that were meant to be a largest step apart may be so by a rounding more; that is let through.

        Args:
            values: (rows, size); (batch, n) for any width, whose values follow one another as one channel.
            before: (size,), what the channels hold now, or (k, size) what they may hold: the first row is held against each.
            row_s: time between rows, in s; needed where a rate is limited.

        Raises:
            OutOfRange: a step that is too large, or NaN.
            ContractError: a time axis, or no `row_s` where it is needed.
        """
        most = self.step_limit(row_s) if self.slews else None
        if most is None or values.numel() == 0:
            return values
        if values.ndim > 2:
            raise ContractError(
                "steps are limited from row to row, and this drive has a time axis", where=f"port {self.name}",
                got=f"shape {tuple(values.shape)}", allowed="(rows, channels)", outputs=UNSENT,
                todo="let the device keep its slew by itself",
            )  # fmt: skip
        rows = values.detach().reshape(-1, self.size or 1)
        held = before.to(rows).reshape(-1, rows.shape[1])
        first, then = torch.cat([held, rows[:-1]]), torch.cat([rows[:1].expand(len(held), -1), rows[1:]])
        grain = torch.finfo(rows.dtype).eps if rows.dtype.is_floating_point else 0.0
        allowed = _kept(most, torch.float64, rows.device) + grain * torch.maximum(first.abs(), then.abs()).double()
        stepped = (then.double() - first.double()).abs()
        bad = ~(stepped <= allowed)
        if bool(bad.any()):
            raise self._steps_refusal(bad, stepped, each(most, self.size), len(held))
        return values

    def _steps_refusal(self, bad: Tensor, stepped: Tensor, most: Sequence[float], held: int) -> OutOfRange:
        channels = _channels(bad, self.size or 1)
        named = channels[:MOST_NAMED]
        row = int(bad.any(1).nonzero()[0]) - held + 2
        return OutOfRange(
            "a step that is too large, from what the channels hold to the first row" if row < 2
            else f"a step that is too large, from row {row - 1} to row {row}",
            where=self._where(channels if self.size is not None else []),
            got=self._said(channels, [f"{float(stepped[:, k - 1].max()):.6g} {self.unit}" for k in named]),
            allowed=self._said(channels, [f"up to {most[k - 1]:g} {self.unit}" for k in named]),
            outputs=UNSENT,
            todo="approach the value in smaller steps, lower the layer's gain, or use a driver that ramps by itself",
        )  # fmt: skip

    def narrowed(self, low: Limit, high: Limit) -> Port:
        """The same port with tighter limits, one for all channels or one for each.

        Raises:
            OutOfRange: the new limits would widen the old ones, of one channel or more.
            ContractError: not as many as there are channels.
        """
        inner = [self._limit("low", low), self._limit("high", high)]
        sides = [each(limit, self.size) for limit in (self.low, *inner, self.high) if limit is not None]
        for number, (least, lowest, highest, most) in enumerate(zip(*sides, strict=True), 1):
            if not least <= lowest <= highest <= most:
                raise OutOfRange(
                    "limits may be narrowed, never widened",
                    where=self._where([number] if self._split(self.low, self.high, *inner) else []),
                    got=f"{lowest:g} to {highest:g} {self.unit}",
                    allowed=f"inside {least:g} to {most:g} {self.unit}",
                    outputs=UNSENT,
                    todo="change the bench file",
                )
        return replace(self, low=low, high=high)


def each(limit: Limit, size: int | None) -> tuple[float, ...]:
    """Return a limit for each of `size` channels; one where any width is taken."""
    return limit if isinstance(limit, tuple) else (limit,) * (size or 1)


def limit_tensor(limit: Limit, like: Tensor) -> Tensor:
    """Return a limit, () or (size,), as `like` is; not to be written to."""
    return _kept(limit, like.dtype, like.device)


@lru_cache(maxsize=256)
def _kept(limit: Limit, dtype: torch.dtype, place: torch.device) -> Tensor:
    """Return a limit, () or (size,), kept: it is asked for at every shot."""
    return torch.tensor(limit, dtype=dtype, device=place)


@lru_cache(maxsize=256)
def _rounded(limit: float, dtype: torch.dtype) -> float:
    """A limit as `dtype` can hold it."""
    return float(torch.tensor(limit, dtype=dtype))


def _channels(bad: Tensor, size: int | None) -> list[int]:
    """Which channels, counted from 1, have a value that is `bad`."""
    return [int(k) + 1 for k in bad.reshape(-1, size or 1).any(0).nonzero().flatten()]


def _spread(values: Tensor, unit: str) -> str:
    low, high = (f"{float(end):.6g}" for end in torch.aminmax(values))
    return f"{low if low == high else f'{low} to {high}'} {unit}"
