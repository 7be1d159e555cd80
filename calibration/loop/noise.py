"""Noise of a reading: the same sequence again and again, each time from rest.

s^2 = mean over symbols of the variance over repeats, less what the converter's steps add to it, shots.of_steps
SNR = 20 log10( standard deviation of the mean answer / s )

noise     the node answers no more than its noise
"""

from __future__ import annotations

import math

from calibration.loop.records import Records
from calibration.sequence import Found, Procedure, Subject
from calibration.shots import of_steps, quantum
from calibration.step import Estimate, Problem, Step

NAME = "noise"
REPEATS, SYMBOLS = 16, 1000
LEAST = 10.0  # times the noise


def noise(subject: Subject, found: Found) -> Step:
    """Estimate the noise of a single reading, and the signal to noise of a random sequence over the whole port."""
    records = Records(subject, NAME)
    drive = records.around_rest(1.0, 1, SYMBOLS)
    answers = records(drive.expand(REPEATS, -1))
    mean, variance = answers.mean(0), answers.var(0)
    grain, unit = quantum(answers.flatten()), records.out.unit
    level = math.sqrt(max(float(variance.mean()) - of_steps(float(variance.mean()), grain), 0.0))
    rest, signal = math.sqrt(float(variance.mean())), float(mean.std())
    error = rest / math.sqrt(2 * (REPEATS - 1) * SYMBOLS)
    estimates = {"noise": Estimate(level, error * (rest / level if level else 0.0), unit)}
    if rest > 0 and signal > 0:
        estimates["snr_db"] = Estimate(20 * math.log10(signal / rest), 8.686 * error / rest, "dB")
    weak = signal < LEAST * rest or signal == 0
    problem = Problem(
        "noise", "the node hardly answers", f"a signal of {signal:.3g} {unit}, noise {rest:.3g} {unit}",
        "look at the light, the photodiode, the cable into the scope and its range",
    )  # fmt: skip
    said = f"noise {estimates['noise']}" + (f", SNR {estimates['snr_db']}" if "snr_db" in estimates else "")
    swing = float(mean.max() - mean.min())
    figures = {"step": grain, "swing": swing, "freedom": float(REPEATS - 1)}
    return Step(
        NAME, said, estimates, (not weak,), (problem,) if weak else (), figures=figures,
        raw={"drive_v": drive[0], "reading_v": mean, "variance": variance},
    )  # fmt: skip


NOISE = Procedure(NAME, noise)
