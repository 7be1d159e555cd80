"""A Device as a module of torch: measured forwards, and backwards by a rule, since nothing differentiates a Device.

    y = decode( device( encode( x ) ) )                     measured, one shot a batch

    rule                  dL/dx                             what takes the place of the device's Jacobian
    "pat"                 J_model(x)^T dL/dy                the Jacobian of a model, at the measured x
    "straight_through"    dL/dy                             the identity, on the host's side of encode and decode
    "adfa"                ( e B^T ) * g(x)                  e = dL/do at the output of the network; dL/dy is not used
    "dfa"                 J_model(x)^T ( e B^T )            as adfa, with the model's Jacobian in place of g

"adfa" and "dfa" are rules of a network, not of a layer: only the output of the network knows e. hil.nn.DirectFeedback, around
the network, catches e there and draws B. Synapses are differentiated by torch itself, so their gradients are exact.

Source: Wright et al., Nature 601, 549 (2022), PAT; Bengio et al., arXiv:1308.3432 (2013), straight-through; Nokland,
arXiv:1609.01596 (2016), DFA; Nakajima et al., Nat. Commun. 13, 7847 (2022), aDFA.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hil.build.dense import swept, told_apart
from hil.build.open_bench import Bench, left_safe, rested, said_aloud, unwrapped
from hil.devices.functions import Functions
from hil.devices.meter import Metered, metered
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient
from hil.devices.stepped import bare, kept_steps
from hil.encoding import Decode, Encode, Overflow
from hil.errors import UNTOUCHED, ConfigError, ContractError
from hil.learners.parts.transport import pulled
from hil.network import Layer
from hil.torch_device import float32_by_default
from sim_devices.simulated import Simulated
from sim_devices.twin import follow

if TYPE_CHECKING:
    from hil.device import Device, Limit, Recoverable
    from hil.twin import Twin

Rule = Literal["adfa", "dfa", "pat", "straight_through"]
DIRECT: tuple[Rule, ...] = ("adfa", "dfa")
WHERE = "hil.nn.Physical"
Model = Callable[[Tensor], Tensor]
Back = Callable[[Tensor, Tensor], Tensor]
"""(x, dL/dy) -> dL/dx."""


@dataclass(frozen=True, slots=True)
class Direct:
    """The values that DirectFeedback gives to a layer for one pass.

    Args:
        projected: e B^T, a new tensor (batch, n); asked for in the backward pass.
        g: in place of the derivative.
    """

    projected: Callable[[], Tensor]
    g: Callable[[Tensor], Tensor]


class Physical(nn.Module):
    """A device between two layers of any torch model; `loss.backward()` goes through it by the rule.

        drive = offset + gain * x          y = (reading - zero) / scale

    Every drive is checked against the limits of the port, counted, and recovered from faults as in hil.train. After an error
    the outputs are made safe before it goes on to you. A device of your own is made safe when Python ends, by its safe() or
    close(), a bench when its hil.open block ends. It has no parameters: a state_dict is that of the layers around it.

    Args:
        device: a static Device, an open bench, or a Twin, which is then simulated in this process; or another Physical, whose
            device then stands behind this layer too.
        rule: of the backward pass.
        gain, offset, overflow, period: of the drive, as of hil.dense.
        decode: zero and scale of the reading, if they are known; else the device is swept, as hil.dense sweeps it.
        model: drive -> reading, differentiable, for "pat" and "dfa"; known already of a twin, and of a bench with one.
        features: values of an example, for "adfa" and "dfa" on a device that takes any number of them.
        seed: of the noise of a Twin.

    Raises:
        ConfigError: no such rule, or it needs what is not given.
        ContractError: a temporal device, or a chip: spiking learners train these.
        OutOfRange, LinkError, InstrumentError, MeasurementError, ForeignError: from the sweep.

    Example:
        >>> import torch
        >>> from sim_devices.mach_zehnder import MachZehnder
        >>> node = Physical(MachZehnder(), "pat", gain=1.0, overflow="clip")
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 20), node, torch.nn.Linear(20, 10))
        >>> net(torch.rand(3, 64)).square().sum().backward()
        >>> net[0].weight.grad.shape
        torch.Size([20, 64])
    """

    @float32_by_default()
    def __init__(
        self,
        device: Device | Twin | Physical,
        rule: Rule = "adfa",
        *,
        gain: Limit = 1.0,
        offset: Limit = 0.0,
        overflow: Overflow = "refuse",
        period: Limit | None = None,
        decode: Decode | None = None,
        model: Model | None = None,
        features: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if rule not in get_args(Rule):
            raise ConfigError("no such rule", where=WHERE, got=repr(rule), allowed=", ".join(get_args(Rule)), outputs=UNTOUCHED)
        shared = device if isinstance(device, Physical) else None
        self.rule: Rule = rule
        self._source = _static(device, seed) if shared is None else shared._source
        self.device: Metered = (
            metered(resilient(kept_steps(unwrapped(self._source)), _ladder)) if shared is None else shared.device
        )
        spec = self.device.spec
        self.features = features or spec.inputs.size
        self._twin = _twin_of(self._source)
        self._model = model or (shared._model if shared is not None else None if self._twin is None else self._twin.ideal)
        self._direct: Direct | None = None
        self._check(spec.outputs.size)
        encode = Encode.onto(spec.inputs, gain, offset, overflow, period)
        if shared is None and not isinstance(bare(self._source), Bench | Functions | Simulated):  # these see to it themselves
            atexit.register(left_safe, self._source)
        known = decode or (swept(self._source).decode() if shared is None else shared.layer.decode)
        self.layer = Layer(nn.Identity(), self.device, encode, known)

    def _check(self, answers: int | None) -> None:
        """Raises: ConfigError: the rule needs what is not given."""
        if self.rule in ("pat", "dfa") and self._model is None:
            raise ConfigError(
                "this rule differentiates a model of the device, and there is none", where=WHERE, got=f'rule "{self.rule}"',
                allowed="a twin, a bench with a [twin], or model=", outputs=UNTOUCHED,
                todo='give model=, drive -> reading; or rule="adfa", which needs none',
            )  # fmt: skip
        if self.rule in DIRECT and self.features is None:
            raise ConfigError(
                "this rule needs to know how many values an example has", where=WHERE,
                got="a device that takes any number of them", allowed="features=", outputs=UNTOUCHED,
                todo="write features=, the width of the layer before it",
            )  # fmt: skip
        if self.rule == "straight_through" and answers not in (None, self.device.spec.inputs.size):
            raise ConfigError(
                "this rule hands every gradient straight to the input of its channel", where=WHERE,
                got=f"{self.device.spec.inputs.size} inputs, {answers} outputs", allowed="as many of the one as of the other",
                outputs=UNTOUCHED, todo='choose rule="pat" or "adfa"',
            )  # fmt: skip

    @property
    def answers(self) -> int | None:
        """Values of an answer; None: as many as of an example."""
        return self.device.spec.outputs.size or self.features

    @property
    def passes(self) -> int:
        """Node evaluations so far, of the device behind this module."""
        return self.device.count.passes

    def overflow(self, x: Tensor) -> float:
        """Return the share of the values of `x` (batch, n) that lie beyond the limits of the device, 0 to 1."""
        assert self.layer.encode is not None  # made with one
        return self.layer.encode.overflowing(x.detach()) / max(1, x.numel())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in) on the host's side -> (batch, n_out), measured; float32 crosses to the device, whatever x is.

        Raises:
            ContractError: a gradient is wanted by "adfa" or "dfa" outside of hil.nn.DirectFeedback; nothing was sent.
            OutOfRange: before anything is sent, and the outputs are made safe.
            LinkError, InstrumentError, MeasurementError, ForeignError: the outputs are made safe.
        """
        follow(self._twin, None, None, x.device)  # the model answers where the network is
        back = self._back() if torch.is_grad_enabled() and x.requires_grad else None
        with torch.no_grad():
            try:
                answer = self.layer.measure(x.detach().float()).to(x.dtype)
            except BaseException as error:
                rested(self._source, error)
                raise
        if back is None:
            return answer
        through: Tensor = _Measured.apply(x, answer, back)  # type: ignore[no-untyped-call]
        return through

    def _back(self) -> Back:
        """The rule, for the pass that begins."""
        if self.rule == "straight_through":
            return lambda x, grad: grad
        model, direct = self._model, self._direct
        if self.rule == "pat":
            assert model is not None  # checked when it was made
            return partial(pulled, partial(self.layer.through, model))
        if direct is None:
            raise ContractError(
                "this rule needs the error at the output of the network", where=WHERE, got=f'rule "{self.rule}" by itself',
                allowed="a network inside hil.nn.DirectFeedback", outputs="unchanged; nothing was sent",
                todo='wrap the network: net = hil.nn.DirectFeedback(net, outputs=10); or choose another rule',
            )  # fmt: skip
        if self.rule == "adfa":
            return lambda x, grad: direct.projected().mul_(direct.g(x.float())).to(x.dtype)
        assert model is not None  # checked when it was made
        through = partial(self.layer.through, model)
        return lambda x, grad: pulled(through, x.float(), direct.projected()).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the rule, for print(net)."""
        return f'rule="{self.rule}"'


class _Measured(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, answer: Tensor, back: Back) -> Tensor:
        ctx.save_for_backward(x)
        ctx.back = back
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return ctx.back(x, grad), None, None


def _static(device: Any, seed: int) -> Device:
    """Raises: ConfigError: no device. ContractError: a spiking one."""
    source, _ = told_apart(device, seed, WHERE)
    if source is None or source.spec.temporal:
        raise ContractError(
            "a spiking node has no Jacobian of one pass", where=WHERE, got="a chip, or a temporal device",
            allowed="a static one", outputs=UNTOUCHED, todo="train spiking nodes by a spiking learner: hil list learners",
        )  # fmt: skip
    return source


def _twin_of(source: Device) -> Twin | None:
    """Return the twin that a device is, or that its bench has; None: nothing is known of its physics."""
    device = bare(source)
    return device.node.twin if isinstance(device, Bench) else device.twin if isinstance(device, Simulated) else None


def _ladder(device: Recoverable) -> Ladder:
    return Ladder(device, Patience(), said_aloud, lambda: None)
