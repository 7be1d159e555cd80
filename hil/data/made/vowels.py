"""Ten English vowels of made-up speakers: the first three formants, as a man, a woman or a child would have them.

    f_k = F_k(vowel, kind of speaker) exp( s + e_k )        s Gaussian, 0.04, one a speaker: the length of the vocal tract
                                                            e Gaussian, 0.06, one an utterance and formant
    x = ln( f_k / 1 kHz ), k = 1, 2, 3                      target the vowel, in the letters of ARPABET

F_k are the means that Peterson and Barney measured; nobody has spoken these vowels. A speaker says each vowel twice, and is a
group: all that one says is in one split.

Source: G. E. Peterson and H. L. Barney, Control methods used in a study of the vowels, J. Acoust. Soc. Am. 24, 175 (1952),
Table II.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from hil.data.examples import Examples, in_memory
from hil.data.made.series import uniform
from hil.settings import Count, check

VOWELS = ("IY", "IH", "EH", "AE", "AA", "AO", "UH", "UW", "AH", "ER")
FORMANTS_HZ = np.array([  # kind of speaker, formant, vowel
    [[270, 390, 530, 660, 730, 570, 440, 300, 640, 490],
     [2290, 1990, 1840, 1720, 1090, 840, 1020, 870, 1190, 1350],
     [3010, 2550, 2480, 2410, 2440, 2410, 2240, 2240, 2390, 1690]],
    [[310, 430, 610, 860, 850, 590, 470, 370, 760, 500],
     [2790, 2480, 2330, 2050, 1220, 920, 1160, 950, 1400, 1640],
     [3310, 3070, 2990, 2850, 2810, 2710, 2680, 2670, 2780, 1960]],
    [[370, 530, 690, 1010, 1030, 680, 560, 430, 850, 560],
     [3200, 2730, 2610, 2320, 1370, 1060, 1410, 1170, 1590, 1820],
     [3730, 3600, 3570, 3320, 3170, 3180, 3310, 3260, 3360, 2160]],
])  # fmt: skip
SPEAKER, UTTERANCE = 0.04, 0.06
TIMES = 2


@dataclass(frozen=True, slots=True)
class Vowels:
    """Formants and vowels.

    Args:
        speakers: men, women and children in turn; each says every vowel twice.
        seed: of speakers and utterances.
    """

    speakers: Count = 75
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
        tract = SPEAKER * ndtri(uniform(self.speakers, self.seed, 0, "vowels speakers") + 2.0**-54)
        spread = UTTERANCE * ndtri(uniform(3 * count, self.seed, 0, "vowels utterances") + 2.0**-54).reshape(count, 3)
        mean = np.log(FORMANTS_HZ[who % 3, :, vowel] / 1e3)
        x = (mean + tract[who, None] + spread).astype(np.float32)
        return Examples(
            "vowels", (3,), in_memory(x), np.array(VOWELS)[vowel], lambda row: f"vowels: example {row}",
            "G. E. Peterson and H. L. Barney, J. Acoust. Soc. Am. 24, 175 (1952), Table II; made-up speakers", group=who,
        )  # fmt: skip
