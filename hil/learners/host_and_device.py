"""Two rules for one network: one trains the synapses of the host, another what is programmed on the devices.

    device    its rule, with every synapse held as it is: dL/dp from losses at other parameters, or by a model of the node
    host      its rule, at the same weights: layers below a trained device too, which aDFA reaches through no gradient of it

Each fills the `.grad` of its own parameters; the optimiser moves both, each group at its rate ([params] lr). Passes of both are
made and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hil.errors import UNTOUCHED, ConfigError, nearest
from hil.learner import Programs, params_step, programs
from hil.learners.adfa import ADFA
from hil.learners.dfa import DFA
from hil.learners.last_layer import LastLayer
from hil.learners.node_perturbation import NodePerturbation
from hil.learners.parts.probe import trained
from hil.learners.pat import PAT
from hil.learners.pepg import PEPG
from hil.learners.spsa import SPSA
from hil.network import Network
from hil.settings import arguments
from hil.task import Loss, Task

HOST: Mapping[str, Any] = {"adfa": ADFA, "dfa": DFA, "last_layer": LastLayer}
DEVICE: Mapping[str, Any] = {"spsa": SPSA, "pepg": PEPG, "pat": PAT, "node_perturbation": NodePerturbation}


@dataclass(frozen=True)
class HostAndDeviceSettings:
    """[learner] of an experiment.

    Args:
        host: a table, use = "adfa", "dfa" or "last_layer", and the settings of that rule.
        device: a table, use = "spsa", "pepg", "pat" or "node_perturbation", and the settings of that rule.
    """

    host: Mapping[str, object] = field(default_factory=lambda: {"use": "adfa"})
    device: Mapping[str, object] = field(default_factory=lambda: {"use": "spsa"})

    def __post_init__(self) -> None:
        self.rules()

    def rules(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Return class and settings of the host's rule and of the devices'. Raises: ConfigError: no such rule or setting."""
        return _rule(self.host, HOST, "[learner] host"), _rule(self.device, DEVICE, "[learner] device")

    @property
    def programs(self) -> Programs | None:
        """By what the devices' rule trains what is programmed."""
        return programs(*self.rules()[1])

    @property
    def params_size(self) -> float | None:
        """Step of the devices' rule in what is programmed; None: it has none."""
        return params_step(self.rules()[1][1])


class HostAndDevice(nn.Module):
    """The learner of two rules; its state is that of both, `host` and `device`."""

    Settings: ClassVar[type[HostAndDeviceSettings]] = HostAndDeviceSettings
    programs: ClassVar[Programs] = "losses"

    def __init__(self, host: Any, device: Any) -> None:
        super().__init__()
        self.host, self.device = host, device

    @classmethod
    def build(
        cls, net: Network, settings: HostAndDeviceSettings, task: Task | int, rng: torch.Generator,
        model: Callable[..., Tensor] | None = None,
    ) -> HostAndDevice:  # fmt: skip
        """Build both from settings.

        Raises:
            ConfigError: nothing is programmed on a device of this network, or a rule needs a model of the node.
        """
        if not net.programmed:
            raise ConfigError(
                "no device of this network has anything programmed that is trained", where="[learner] device",
                allowed="a network with [params]", todo="add [params], or choose the host's rule alone",
            )  # fmt: skip
        return cls(*(rule.build(net, options, task, rng, model) for rule, options in settings.rules()))

    @property
    def loss(self) -> Loss:
        """What both lower."""
        found: Loss = self.host.loss
        return found

    @loss.setter
    def loss(self, loss: Loss) -> None:
        self.host.loss = self.device.loss = loss

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Make the passes of both rules, then overwrite every `.grad`; returns what the host's rule says."""
        on_devices = net.programmed
        with _alone(net, on_devices):
            self.device.step(net, x, label, rng)
        slopes = [params.grad for params in on_devices]
        metrics: Mapping[str, float] = self.host.step(net, x, label, rng)  # such a rule trains synapses alone
        for params, slope in zip(on_devices, slopes, strict=True):
            params.grad = slope
        return metrics

    def predict(self, net: Network, x: Tensor) -> Tensor:
        """(batch, outputs): the readout."""
        found: Tensor = self.host.predict(net, x)
        return found


@contextmanager
def _alone(net: Network, chosen: list[nn.Parameter]) -> Iterator[None]:
    """Inside, no other parameter of the network is trained."""
    held = [one for one in trained(net) if not any(one is other for other in chosen)]
    for one in held:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in held:
            one.requires_grad_(True)


def _rule(table: Mapping[str, object], known: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    use = table.get("use") if isinstance(table, Mapping) else None
    if not isinstance(use, str) or use not in known:
        raise ConfigError(
            "no such rule", where=where, got=repr(use if isinstance(table, Mapping) else table), allowed=", ".join(known),
            outputs=UNTOUCHED, todo=nearest(str(use), known) or f'write use = "{next(iter(known))}"',
        )  # fmt: skip
    of = known[use].Settings
    return known[use], of(**arguments(of, {key: value for key, value in table.items() if key != "use"}, where))
