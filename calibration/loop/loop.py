"""Delay and gain of the loop: the linear response to small drives around the rest.

    y_n = y0 + sum_k h_k x_{n-k} + noise         k = 0 ... LAGS nodes, by least squares over sequences from rest
    echo at D = argmax |h_k| behind the direct answer;   loop gain = sum h around D / sum h around 0
    loop delay = D symbols + (centre of the echo - centre of the direct answer)

A loop gain of 1 and more is an oscillation. Small drives see the loop at its rest; its gain elsewhere is another.

    loop     no echo is seen; or the loop oscillates at rest; or it takes another time than the twin says
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.loop.records import Records
from calibration.sequence import Found, Procedure, Subject
from calibration.step import Estimate, Problem, Step

NAME = "loop"
LAGS = 3  # steps of all virtual nodes that an echo is looked for in
SHARE = 0.1  # of the port's range
SEQUENCES, OVER = 8, 6  # equations for an unknown
SURE, OFF = 6.0, 0.25  # standard deviations; symbols
WIDTH = 2  # symbols around an echo that belong to it
DELAY = "delay_s"  # of the twin


def loop(subject: Subject, found: Found) -> Step:
    """Estimate loop_gain, and loop_delay in s, or in symbols where no twin says how long one lasts."""
    records = Records(subject, NAME)
    lags = LAGS * records.nodes
    length = -(-OVER * lags // SEQUENCES) + lags
    drive = records.around_rest(SHARE, SEQUENCES, length)
    h, sigma = response(drive - records.rest, records(drive), lags)
    raw = {"lag": torch.arange(lags + 1, dtype=torch.float64), "response": h, "response_sigma": sigma}
    behind = h[WIDTH + 1 :].abs()
    echo = WIDTH + 1 + int(behind.argmax())
    if float(h[echo].abs()) < SURE * float(sigma[echo]):
        unseen = Problem(
            "loop", "no echo is seen: nothing goes around", f"{float(h[echo]):.2g} of noise {float(sigma[echo]):.2g}",
            "see that the loop is closed, and that its modulator is not biased at an extremum",
        )  # fmt: skip
        return Step(NAME, unseen.what, {}, (False,), (unseen,), raw=raw)
    direct, round_ = (slice(max(0, k - WIDTH * (k > 0)), k + WIDTH + 1) for k in (0, echo))
    first, second = float(h[direct].sum()), float(h[round_].sum())
    own = [float(sigma[part].square().sum().sqrt()) for part in (direct, round_)]
    gain = second / first
    error = math.hypot(own[1], gain * own[0]) / abs(first)
    symbols = _centre(h[round_], round_.start) - _centre(h[direct], 0)
    wide = WIDTH * own[1] / abs(second)
    unit_s = records.symbol_s
    delay = Estimate(symbols, wide) if unit_s is None else Estimate(symbols * unit_s, wide * unit_s, "s")
    estimates = {"loop_gain": Estimate(gain, error), "loop_delay": delay}
    problems = tuple(_problems(gain, symbols, records, subject))
    said = f"loop of {symbols:.2f} symbols, {delay}; gain at rest {estimates['loop_gain']}"
    figures = {"loop_symbols": symbols, "coupled": symbols - records.nodes}
    return Step(NAME, said, estimates, (not problems,), problems, figures=figures, raw=raw)


def response(drive: Tensor, answer: Tensor, lags: int) -> tuple[Tensor, Tensor]:
    """Return the linear response (lags + 1,) and its standard deviation.

    Args:
        drive: less its rest, (sequences, symbols); 0 before.
        answer: alike.
        lags: symbols that it reaches back.
    """
    before = torch.cat([drive.new_zeros(len(drive), lags), drive], 1)
    rows = before.unfold(1, lags + 1, 1).flip(2).reshape(-1, lags + 1)
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
    normal = rows.t() @ rows
    h = torch.linalg.solve(normal, rows.t() @ answer.reshape(-1))
    left = answer.reshape(-1) - rows @ h
    variance = float(left.square().sum()) / max(1, len(left) - lags - 2)
    return h[:-1], (torch.linalg.inv(normal).diagonal() * variance).sqrt()[:-1]


def _centre(h: Tensor, start: int) -> float:
    """Return where the response lies, symbols, by its magnitude."""
    weight = h.square()
    return start + float((weight * torch.arange(len(h), dtype=h.dtype)).sum() / weight.sum())


def _problems(gain: float, symbols: float, records: Records, subject: Subject) -> list[Problem]:
    found = []
    if abs(gain) >= 1:
        found.append(Problem(
            "loop", "the loop oscillates at rest", f"a gain of {gain:.2f}, below 1 allowed",
            "lower the gain of the loop by its attenuator or amplifier, or move its bias",
        ))  # fmt: skip
    known = {} if subject.nominal is None else subject.nominal.settings()
    if records.symbol_s is not None and known.get(DELAY):
        wanted = known[DELAY] / records.symbol_s
        if abs(wanted - symbols) > OFF:
            found.append(Problem(
                "loop", "the loop takes another time than the twin says",
                f"{symbols:.2f} symbols, {wanted:.2f} in [twin], {OFF:g} apart allowed",
                "write the measured delay into [twin] and [memory], or choose a symbol_rate of which it is a whole number",
            ))  # fmt: skip
    return found


LOOP = Procedure(NAME, loop, needs=("noise", "delay"))
