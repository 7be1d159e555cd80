"""Waveform memory of a generator channel: records of DAC codes by name.

    code   int16, -32767 to 32767; -32768 does not exist. A float record in [-1, 1] is kept as round(32767 x).

Source: Keysight 33500B/33600A Series Operating and Service Guide, "DATA Subsystem". A name that is loaded cannot be loaded
again before the memory was cleared; clearing brings back the built-in EXP_RISE.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sim_devices.instruments.program_message import Block, Quoted, ScpiError, Token

FULL_SCALE = 32767
BUILT_IN = "EXP_RISE"
NO_MEMORY, NO_WAVEFORM, LOADED_ALREADY, ODD_LENGTH = 781, 785, 786, 800
TEXTS = {
    NO_MEMORY: "Not enough memory to store new arb waveform",
    NO_WAVEFORM: "Specified arb waveform does not exist",
    LOADED_ALREADY: "Specified arb waveform already exists",
    ODD_LENGTH: "Block length must be even",
}
Record = NDArray[np.int16]


class VolatileMemory:
    """The volatile waveform memory of a channel.

    Args:
        samples: how many fit.
        least: the shortest record.
    """

    def __init__(self, samples: int, least: int) -> None:
        self._samples, self._least = samples, least
        self._records: dict[str, Record] = {}
        self.clear()

    def clear(self) -> None:
        """Forget all records but the built-in one, EXP_RISE."""
        rise = 1 - np.exp(-5 * np.linspace(0, 1, 64))
        self._records = {BUILT_IN: np.rint(rise * FULL_SCALE).astype(np.int16)}

    @property
    def free(self) -> int:
        """Samples that still fit."""
        return self._samples - sum(len(r) for name, r in self._records.items() if name != BUILT_IN)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the records, the built-in one included."""
        return tuple(self._records)

    def __getitem__(self, name: str) -> Record:
        record = self._records.get(name)
        if record is None:
            raise ScpiError(NO_WAVEFORM, name)
        return record

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def load(self, name: str, record: Record) -> None:
        """Keep `record` (n,), which is ours from now on.

        Raises:
            ScpiError: the name is taken, the record is too short or does not fit.
        """
        if name in self._records:
            raise ScpiError(LOADED_ALREADY, name)
        if len(record) < self._least:
            raise ScpiError(-222, f"{len(record)} points; at least {self._least}")
        if len(record) > self.free:
            raise ScpiError(NO_MEMORY, f"{len(record)} points; {self.free} free")
        self._records[name] = record

    def replace(self, name: str, record: Record) -> None:
        """Keep `record` (n,) under `name`, instead of another of that name; one that does not fit is cut."""
        self._records.pop(name, None)
        self._records[name] = record[: self.free]

    def snapshot(self) -> dict[str, object]:
        """Return all records by name, as base64 of little-endian 16-bit words."""
        return {name: base64.b64encode(r.astype("<i2").tobytes()).decode() for name, r in self._records.items()}

    def restore(self, state: Mapping[str, str]) -> None:
        """Raises: ValueError: not what a memory can hold."""
        records = {name: np.frombuffer(base64.b64decode(text), "<i2").astype(np.int16) for name, text in state.items()}
        whole = sum(len(r) for name, r in records.items() if name != BUILT_IN)
        if (
            BUILT_IN not in records
            or whole > self._samples
            or not all(len(r) and r.min() >= -FULL_SCALE for r in records.values())
        ):
            raise ValueError(f"records of {whole} samples, {sorted(records)}")
        self._records = records


def waveform_name(token: Token) -> str:
    """A waveform's name, at most 12 characters, upper case."""
    if isinstance(token, Block):
        raise ScpiError(-104, "a block where a name is due")
    name = (token.text if isinstance(token, Quoted) else token).upper()
    if not 1 <= len(name) <= 12 or not name.replace("_", "").isalnum():
        raise ScpiError(-224, name[:24])
    return name


def dac_codes(block: Block, swapped: bool) -> Record:
    """The one copy of an upload: bytes of the message to int16 (n,) of this machine."""
    if len(block.data) % 2:
        raise ScpiError(ODD_LENGTH, f"{len(block.data)} bytes")
    codes = np.frombuffer(block.data, "<i2" if swapped else ">i2").astype(np.int16)
    if codes.size and codes.min() < -FULL_SCALE:
        raise ScpiError(-222, "-32768; -32767 to 32767")
    return codes


def from_integers(values: NDArray[np.float64]) -> Record:
    """Make a record from DAC values sent as text."""
    if values.size and np.abs(values).max() > FULL_SCALE:
        raise ScpiError(-222, f"{values[np.abs(values).argmax()]:g}; -32767 to 32767")
    codes: Record = np.rint(values).astype(np.int16)
    return codes


def from_fractions(values: NDArray[np.floating]) -> Record:
    """Make a record from floats, shares of full scale."""
    if not (values.size == 0 or np.abs(values).max() <= 1):  # also catches NaN
        raise ScpiError(-222, "-1.0 to 1.0")
    codes: Record = np.rint(values * FULL_SCALE).astype(np.int16)
    return codes


def fractions(block: Block, swapped: bool) -> Record:
    """A block of float32."""
    if len(block.data) % 4:
        raise ScpiError(-161, f"{len(block.data)} bytes of float32")
    return from_fractions(np.frombuffer(block.data, "<f4" if swapped else ">f4"))
