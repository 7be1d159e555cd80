"""The channels of a layer shared out among the classes, and the goodness of each class.

    G_c = s mean_{channels of c, positions} ( pre / scale )^2          dG_c/dpre = 2 s pre / ( scale^2 |c| positions )

Source: Xu et al., arXiv:2507.23643 (2025), after channel-wise competitive learning, Papachristodoulou et al., arXiv:2312.12668.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hil.errors import ConfigError
from hil.learners.parts.difficulty import apportioned


class ClassGroups(nn.Module):
    """The class that every channel works for, (channels,) int64, a buffer.

    Args:
        channels: of the layer.
        shares: one positive number a class.
        temperature: s.
        scale: of the pre-activation.
    """

    owner: Tensor

    def __init__(self, channels: int, shares: Sequence[float], temperature: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        if channels < len(shares):
            raise ConfigError(
                "too few channels to give every class one", where="[network]", got=f"{channels} channels",
                allowed=f"{len(shares)} or more", outputs="untouched; nothing was opened", todo="make every layer wider",
            )  # fmt: skip
        self.classes, self.factor = len(shares), temperature / scale**2
        counts = torch.tensor(apportioned(shares, channels))
        self.register_buffer("owner", torch.repeat_interleave(torch.arange(len(shares)), counts))

    @property
    def counts(self) -> Tensor:
        """Channels of every class, (classes,)."""
        return torch.bincount(self.owner, minlength=self.classes)

    def goodness(self, pre: Tensor) -> Tensor:
        """(batch, channels x positions), channel by channel -> (batch, classes)."""
        return self._maps(pre).square().mean(2) @ self._share(pre) * self.factor

    def pulled(self, pre: Tensor, slope: Tensor) -> Tensor:
        """dL/dpre from dL/dG (batch, classes)."""
        maps = self._maps(pre)
        per_channel = slope @ self._share(pre).t() * (2 * self.factor / maps.shape[2])
        return (maps * per_channel.unsqueeze(2)).view_as(pre)

    def towards(self, shares: Sequence[float]) -> bool:
        """Move one channel, from the class most over `shares` to the one most under; False if there is none."""
        wanted = torch.tensor(apportioned(shares, len(self.owner)), device=self.owner.device)
        over = self.counts - wanted
        if not bool(over.any()):
            return False
        giver, taker = int(over.argmax()), int(over.argmin())
        last = int((self.owner == giver).nonzero()[-1])
        self.owner[last] = taker
        return True

    def _maps(self, pre: Tensor) -> Tensor:
        return pre.reshape(len(pre), len(self.owner), -1)

    def _share(self, pre: Tensor) -> Tensor:
        """(channels, classes): 1 / |c| where a channel works for c."""
        member = nn.functional.one_hot(self.owner, self.classes).to(pre.dtype)
        return member / member.sum(0)
