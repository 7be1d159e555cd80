"""Ten English vowels as they sound over time, made by formant synthesis: sequences of band energies, one target each.

    source     pulses of the voice at f0, which falls over the utterance, through a low-pass of 12 dB an octave, and breath
    tract      y(t) = a x(t) + b y(t - 1) + c y(t - 2)        a resonator for each of three formants, one behind the other
               c = -exp( -2 pi B T ),  b = 2 exp( -pi B T ) cos( 2 pi F T ),  a = 1 - b - c
    F(t)       from those of a neutral tract to those of the vowel and back; the utterance begins somewhere in the recording
    lips       the difference of two samples                  besides, white noise snr_db below the utterance
    x          ln of the energy in mel bands, in frames of 20 ms every 10 ms

Formants of the vowels are the means that Peterson and Barney measured of men, women and children (hil/data/made/vowels.py),
each speaker with a tract of a length of its own, each utterance strayed. The pitches are round numbers near theirs. Nobody
has spoken these vowels: they stand in for recordings where there are none. A speaker says each vowel twice, and is a group:
all that one says is in one split. The energies are rounded, so that every machine makes the same.

Sources: G. E. Peterson and H. L. Barney, J. Acoust. Soc. Am. 24, 175 (1952), Table II; D. H. Klatt, J. Acoust. Soc. Am. 67,
971 (1980), the resonators; S. S. Stevens, J. Volkmann and E. B. Newman, J. Acoust. Soc. Am. 8, 185 (1937), the mel, by the
formula of D. O'Shaughnessy, Speech Communication, Addison-Wesley (1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtri

from hil.data.examples import Examples, in_memory
from hil.data.made.series import uniform
from hil.data.made.vowels import FORMANTS_HZ, SPEAKER, TIMES, UTTERANCE, VOWELS
from hil.settings import Count, check

RATE_HZ = 10_000
FRAME, HOP = 200, 100
PITCH_HZ = (130.0, 220.0, 270.0)  # of a man, a woman, a child
BANDWIDTH_HZ = (60.0, 90.0, 150.0)
NEUTRAL_HZ = np.array([[500.0, 1500.0, 2500.0], [590.0, 1770.0, 2950.0], [700.0, 2100.0, 3500.0]])  # a tube closed at one end
VOICE_HZ = 100.0  # of the low-pass behind the pulses
BREATH = 0.02
LOWEST_HZ, HIGHEST_HZ = 100.0, 4_800.0
SILENCE = 1e-7  # least energy of a band
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SpokenVowels:
    """Sequences of band energies, and vowels.

    Args:
        speakers: men, women and children in turn; each says every vowel twice.
        frames: of a recording, 10 ms each.
        bands: features of a frame.
        snr_db: signal to noise, dB.
        seed: of speakers, utterances and noise.
    """

    speakers: Count = 45
    frames: Annotated[int, Field(ge=10, le=500)] = 30
    bands: Annotated[int, Field(ge=4, le=40)] = 12
    snr_db: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self) -> Examples:
        """Make them."""
        per = TIMES * len(VOWELS)
        count = self.speakers * per
        who = np.repeat(np.arange(self.speakers), per)
        vowel = np.tile(np.arange(len(VOWELS)), self.speakers * TIMES)
        tract = np.exp(SPEAKER * self._normal(self.speakers, "tract"))[who]
        spread = np.exp(UTTERANCE * self._normal(3 * count, "utterances").reshape(count, 3))
        aim = FORMANTS_HZ[who % 3, :, vowel] * tract[:, None] * spread
        pitch = np.array(PITCH_HZ)[who % 3] * np.exp(0.1 * self._normal(self.speakers, "pitch"))[who]
        share = uniform(2 * count, self.seed, 0, "spoken vowels when").reshape(2, count)
        begin, length = 0.05 + 0.15 * share[0], 0.5 + 0.25 * share[1]  # shares of the recording
        sound = self._spoken(aim, NEUTRAL_HZ[who % 3] * tract[:, None], pitch, begin, length)
        loud = np.sqrt(np.mean(np.square(sound), 1, keepdims=True))
        noise = self._normal(sound.size, "noise").reshape(sound.shape)
        sound = sound / loud + 10 ** (-self.snr_db / 20) * noise
        x = np.round(energies(sound, self.bands), 4)
        return Examples(
            "spoken_vowels", (self.frames, self.bands), in_memory(x.astype(np.float32)), np.array(VOWELS)[vowel],
            lambda row: f"spoken_vowels: example {row}",
            "G. E. Peterson and H. L. Barney, J. Acoust. Soc. Am. 24, 175 (1952), Table II; D. H. Klatt, J. Acoust. Soc. Am. "
            "67, 971 (1980); made-up speakers", group=who,
        )  # fmt: skip

    def _normal(self, count: int, stream: str) -> Array:
        found: Array = ndtri(uniform(count, self.seed, 0, f"spoken vowels {stream}") + 2.0**-54)
        return found

    def _spoken(self, aim: Array, neutral: Array, pitch: Array, begin: Array, length: Array) -> Array:
        """The sound of utterances.

        Args:
            aim: formants of the vowel, (n, 3), Hz.
            neutral: those at the beginning and the end, alike.
            pitch: f0 at the beginning, (n,), Hz.
            begin: of the utterance, (n,), share of the recording.
            length: alike.

        Returns:
            (n, samples).
        """
        samples = FRAME + HOP * (self.frames - 1)
        at = (np.arange(samples) / samples - begin[:, None]) / length[:, None]  # 0 to 1 within the utterance
        inside = (at >= 0) & (at < 1)
        turns = np.cumsum(np.where(inside, pitch[:, None] * (1 - 0.15 * at) / RATE_HZ, 0.0), 1)
        pulse = np.diff(np.floor(turns), axis=1, prepend=0.0)
        breath = BREATH * self._normal(at.size, "breath").reshape(at.shape) * inside
        there = np.clip(np.minimum(at, 1 - at) / 0.3, 0.0, 1.0)  # of the vowel, in shares
        source = pulse + breath
        keep = math.exp(-2 * math.pi * VOICE_HZ / RATE_HZ)
        for _ in range(2):
            source = _filtered(source, np.full((1, samples), keep), np.zeros((1, samples)))
        for number, width in enumerate(BANDWIDTH_HZ):
            hertz = neutral[:, number, None] + (aim - neutral)[:, number, None] * there
            c = -math.exp(-2 * math.pi * width / RATE_HZ)
            b = 2 * math.exp(-math.pi * width / RATE_HZ) * np.cos(2 * np.pi * hertz / RATE_HZ)
            source = _filtered(source, b, np.full((1, samples), c))
        return np.diff(source, axis=1, prepend=0.0)


def _filtered(x: Array, b: Array, c: Array) -> Array:
    """y(t) = (1 - b - c) x(t) + b y(t - 1) + c y(t - 2) for (n, samples); b and c (n or 1, samples)."""
    drive, b, c = np.ascontiguousarray(((1 - b - c) * x).T), np.ascontiguousarray(b.T), np.ascontiguousarray(c.T)
    found = np.empty_like(drive)
    last = before = np.zeros(drive.shape[1])
    for t, now in enumerate(drive):
        last, before = now + b[t] * last + c[t] * before, last
        found[t] = last
    return np.ascontiguousarray(found.T)


def energies(sound: Array, bands: int) -> Array:
    """(n, samples) -> (n, frames, bands): ln of the energy in triangles that are even in mel."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME, axis=1)[:, ::HOP]
    spectrum = np.square(np.abs(np.fft.rfft(frames * np.hanning(FRAME), axis=2))) / FRAME**2
    hertz = np.fft.rfftfreq(FRAME, 1 / RATE_HZ)
    edges = band_edges(bands)
    rise = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.clip(np.minimum(rise, fall), 0.0, None)
    found: Array = np.log(spectrum @ weights.T + SILENCE)
    return found


def band_edges(bands: int) -> Array:
    """Where the triangles begin, have their tops, and end: (bands + 2,), Hz; top k is edge k + 1."""
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST_HZ, HIGHEST_HZ))
    found: Array = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    return found
