"""What is in an example, where it comes from, and what the targets mean. Name the source of the data here."""

import math

import torch
from torch.utils.data import Dataset


class Recordings(Dataset):
    """Short recordings of three kinds of oscillation: a made-up signal until you read yours.

    Args:
        count: how many examples.
        samples: of a recording.
        noise: standard deviation.
    """

    kinds = ("sine", "square", "triangle")

    def __init__(self, count: int = 600, samples: int = 32, noise: float = 0.1) -> None:
        # Find out what there is: read a list of files here, not the files.
        self.count, self.samples, self.noise = count, samples, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, str]:
        # Read one example: x of any shape, the same for all; y text or a whole number for a class, other numbers for numbers.
        # The same number must give the same example: draw what is random from a generator of its own.
        rng = torch.Generator().manual_seed(number)
        kind = self.kinds[number % len(self.kinds)]
        turns = torch.arange(self.samples) / self.samples * 2 + torch.rand(1, generator=rng)
        wave = torch.sin(2 * math.pi * turns)
        if kind == "square":
            wave = wave.sign()
        elif kind == "triangle":
            wave = torch.asin(wave) * 2 / math.pi
        return wave + self.noise * torch.randn(self.samples, generator=rng), kind
