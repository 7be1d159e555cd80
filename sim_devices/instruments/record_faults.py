"""Faults in a record of a scope: at its input, and in what its memory gives back.

stuck       v = volts                              saturation   v <- v + volts, which the converter then clips
holes       word = 0 at `points` places            sentinel     preamble 9.9E37 where a number is due, and 0 in every word
behind      the record before this one, if it had the same time base
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sim_devices.instruments.converter import HOLE
from sim_devices.instruments.faults import Strike
from sim_devices.instruments.scope_record import Record


def at_input(volts: Tensor, channel: int, range_v: float, strikes: Sequence[Strike]) -> Tensor:
    """(n,) V that the converter of `channel` sees."""
    for fault in (strike.fault for strike in strikes):
        if fault.channel != channel:
            continue
        if fault.kind == "stuck":
            volts = torch.full_like(volts, fault.volts or 0.0)
        elif fault.kind == "saturation":
            volts = volts + (range_v if fault.volts is None else fault.volts)
    return volts


def in_memory(record: Record, channel: int, strikes: Sequence[Strike], before: Record | None = None) -> Record:
    """The record of `channel` that is read out.

    Args:
        record: as it was taken.
        channel: that is read out.
        strikes: faults that strike this exchange.
        before: the one that was recorded last, undamaged.
    """
    for strike in strikes:
        if strike.fault.channel != channel:
            continue
        if strike.fault.kind == "holes":
            words = record.words.copy()
            words[strike.rng.sample(range(len(words)), min(strike.fault.points, len(words)))] = HOLE
            record = replace(record, words=words)
        elif strike.fault.kind == "behind" and before is not None and before.window == record.window:
            record = before
        elif strike.fault.kind == "sentinel":
            words = record.words.copy()
            words[:] = HOLE
            record = replace(record, words=words, range_v=math.nan, offset_v=math.nan)
    return record
