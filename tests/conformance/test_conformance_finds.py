"""What the published checks are for: each breach of a contract is found, and named, and nothing else is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

import pytest
import torch
from torch import Tensor, nn

from hil.conformance import Knob, check_device, check_instrument, check_learner, check_twin
from hil.device import Port, Spec
from hil.errors import ContractError
from hil.feedback.feedback import Feedback, Sine
from hil.learners.adfa import ADFA
from hil.network import Network, Trace, fill
from hil.task import Loss
from sim_devices.mach_zehnder import MachZehnder


def test_a_report_says_what_was_skipped_and_why() -> None:
    report = check_twin(MachZehnder)
    assert ("a batch is its rows, each alone", "the twin has noise; give one without") in report.skipped
    assert "twin MachZehnder: 6 passed, 2 skipped, 0 failed" in str(report)


# Broken on purpose: each must be found, and named.


class Plain:
    """A correct device; each broken one changes one thing."""

    spec = Spec(Port("plain in", -1, 1, "V", 3), Port("plain out", -2, 2, "V", 3), provenance="replay")

    def __init__(self) -> None:
        self.sent = 0
        self.closed = False

    def program(self, params: Tensor) -> None:
        raise ContractError("this node is fixed", where="plain")

    def reset(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        self.sent += 1
        return (2 * x).detach()

    def close(self) -> None:
        self.closed = True


class Clips(Plain):
    def forward(self, x: Tensor) -> Tensor:
        self.sent += 1
        return (2 * x.nan_to_num().clamp(-1, 1)).detach()


class SendsAsItChecks(Plain):
    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for row in x:
            self.spec.inputs.check(row)
            self.sent += 1
            rows.append(2 * row.detach())
        return torch.stack(rows)


class Doubles(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double()


class Leaks(Plain):
    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        return 2 * x


class ChangesTheDrive(Plain):
    def forward(self, x: Tensor) -> Tensor:
        answer = super().forward(x)
        with torch.no_grad():
            x.mul_(0.5)
        return answer


class OneBuffer(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = torch.zeros(100, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.buffer[: len(x)] = super().forward(x)
        return self.buffer[: len(x)]


class OutOfItsPort(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 3


class LosesARow(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[: max(1, len(x) - len(x) % 2)]


class GlobalChance(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.rand(x.shape)


class TakesPrograms(Plain):
    def program(self, params: Tensor) -> None: ...


class ClosesOnce(Plain):
    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class Forgets(Plain):
    """Saves its state, but not all of it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.sent

    def snapshot(self) -> Mapping[str, object]:
        return {"trail": self.sent}

    def restore(self, state: Mapping[str, object]) -> None: ...


class MixesUpAnswers(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.late = torch.zeros(1, 3)

    def submit(self, x: Tensor) -> Future[Tensor]:
        answer: Future[Tensor] = Future()
        answer.set_result(self.late)
        self.late = self.forward(x)
        return answer


class Endless(Plain):
    spec = dataclasses.replace(Plain.spec, inputs=Port("endless", float("-inf"), float("inf")))


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (Clips, ["[unsafe] refuses NaN, sending nothing: it was taken", "above the limit", "below the limit", "infinity"]),
        (SendsAsItChecks, ["[unsafe] refuses NaN, sending nothing: refused, but something was sent before"]),
        (Doubles, ["[wrong] a batch of 1 gives as many readings: dtype torch.float64"]),
        (Leaks, ["[wrong] no graph goes through: the reading requires grad"]),
        (ChangesTheDrive, ["the caller's tensor was changed"]),
        (OneBuffer, ["[wrong] a reading stays what it was"]),
        (OutOfItsPort, ["a reading outside its own port"]),
        (LosesARow, ["[wrong] a batch of 3 gives as many readings"]),
        (GlobalChance, ["[wrong] two made alike answer alike"]),
        (TakesPrograms, ["a fixed node took a program"]),
        (ClosesOnce, ["[unsafe] close may come twice: raised RuntimeError: closed already"]),
        (Forgets, ["[wrong] a saved state goes on with the same readings"]),
        (MixesUpAnswers, ["[wrong] submitted drives are answered in order"]),
        (Endless, ["[poor] spec is truthful: the limits of the drive are not finite"]),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_a_broken_device_is_found(broken: type[Plain], found: list[str]) -> None:
    with pytest.raises(ContractError) as refusal:
        check_device(broken, sent=lambda device: device.sent)  # type: ignore[attr-defined]
    text = str(refusal.value)
    assert f"device {broken.__name__}: " in text
    assert all(words in text for words in found), text


def test_the_plain_device_is_whole_and_the_gravest_comes_first() -> None:
    assert check_device(Plain, sent=lambda device: device.sent).passed  # type: ignore[attr-defined]

    class Twice(Clips):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).double()

    with pytest.raises(ContractError) as refusal:
        check_device(Twice)
    assert str(refusal.value).index("[unsafe]") < str(refusal.value).index("[wrong]")


class PlainTwin(nn.Module):
    """A correct twin; each broken one changes one thing."""

    spec = Spec(Port("twin in", -1, 1), Port("twin out", -2, 2), provenance="twin")

    def rest(self, batch: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.zeros(batch, 1),)

    def respond(
        self, state: tuple[Tensor, ...], params: Tensor | None, x: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.ideal(x), (state[0] + 1,)

    def ideal(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class HiddenState(PlainTwin):
    calls = 0

    def respond(self, state, params, x, rng):  # type: ignore[no-untyped-def]
        self.calls += 1
        return self.ideal(x) / self.calls, state


class ChangesItsState(PlainTwin):
    def respond(self, state, params, x, rng):  # type: ignore[no-untyped-def]
        return self.ideal(x), (state[0].add_(1),)


class OwnChance(PlainTwin):
    def respond(self, state, params, x, rng):  # type: ignore[no-untyped-def]
        return self.ideal(x) + 0.1 * torch.rand(x.shape), state


class MixesRows(PlainTwin):
    def respond(self, state, params, x, rng):  # type: ignore[no-untyped-def]
        return self.ideal(x - x.mean(0)), state


class WrongSlope(PlainTwin):
    def ideal(self, x: Tensor) -> Tensor:
        return torch.sin(x).detach() + (x - x.detach())


class ClaimsToBeReal(PlainTwin):
    spec = dataclasses.replace(PlainTwin.spec, provenance="real")


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (HiddenState, "the same state gave another answer"),
        (ChangesItsState, "the state that was given was changed"),
        (OwnChance, "[wrong] all chance comes from the generator"),
        (MixesRows, "[wrong] a batch is its rows, each alone"),
        (WrongSlope, "[wrong] gradient of the ideal"),
        (ClaimsToBeReal, "provenance 'real'"),
    ],
)
def test_a_broken_twin_is_found(broken: type[PlainTwin], found: str) -> None:
    assert check_twin(PlainTwin).passed
    with pytest.raises(ContractError) as refusal:
        check_twin(broken)
    assert found in str(refusal.value)


class Rule(ADFA):
    """aDFA, to be broken."""

    def __init__(self, net: Network, classes: int, rng: torch.Generator, model: Callable[[Tensor], Tensor]) -> None:
        super().__init__(Feedback(Sine(phase=0.6)), (12, 12), classes, rng)
        self.rng = rng


class ReadoutOnly(Rule):
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        metrics = super().step(net, x, label, rng)
        net.stack[0].synapse.zero_grad()
        return metrics


class AddsUp(Rule):
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        old = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
        metrics = super().step(net, x, label, rng)
        for param, grad in zip(net.parameters(), old, strict=True):
            if grad is not None and param.grad is not None:
                param.grad += grad
        return metrics


class StepsItself(Rule):
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        metrics = super().step(net, x, label, rng)
        with torch.no_grad():
            for param in net.parameters():
                param -= 0.1 * param.grad  # type: ignore[operator]
        return metrics


class GlobalNoise(Rule):
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        return super().step(net, x + 0.01 * torch.randn(x.shape), label, rng)


class NotInState(Rule):
    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor], *args: object, **kwargs: object) -> None: ...  # type: ignore[override]


class WrongWay(Rule):
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        metrics = super().step(net, x, label, rng)
        for param in net.parameters():
            param.grad = -param.grad  # type: ignore[operator]
        return metrics


class BackThroughTheDevice(Rule):
    """Takes whatever the device answers, graph and all."""

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        inputs, pre, h = [], [], x
        for layer in net.stack:
            inputs.append(h)
            pre.append(layer.synapse(h))
            h = pre[-1] if layer.device is None else layer.device.forward(layer.encode(pre[-1]))  # type: ignore[misc]
        error, metrics = Loss().judge(h.detach(), label)
        fill(net, Trace(tuple(inputs), tuple(pre), tuple(pre)), [*self.projection.onto(error), error])
        return metrics

    def predict(self, net: Network, x: Tensor) -> Tensor:
        h = x
        for layer in net.stack:
            h = layer.synapse(h)
            h = h if layer.device is None else layer.device.forward(layer.encode(h)).detach()  # type: ignore[misc]
        return h.detach()


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (ReadoutOnly, "no gradient for layers.0.synapse.weight, layers.0.synapse.bias"),
        (AddsUp, "[wrong] old gradients are overwritten"),
        (StepsItself, "a parameter was changed"),
        (GlobalNoise, "[wrong] all chance comes from the generators"),
        (NotInState, "[wrong] saved and loaded, it goes on with the same gradients"),
        (WrongWay, "[poor] the loss falls on a small problem"),
        (BackThroughTheDevice, "[wrong] a device that lets a graph through is refused: its reading was taken"),
    ],
)
def test_a_broken_learner_is_found(broken: type[Rule], found: str) -> None:
    assert check_learner(Rule).passed
    with pytest.raises(ContractError) as refusal:
        check_learner(broken)
    assert found in str(refusal.value)


class Supply:
    """A correct instrument in memory: one voltage, one switch."""

    def __init__(self) -> None:
        self.messages, self.volts, self.on = 0, 0.0, False

    def identify(self) -> object:
        self.messages += 1
        return "ACME,PSU1,SN7,1.0"

    def knobs(self) -> Sequence[Knob]:
        return [Knob("voltage", self.set_volts, lambda: self.volts, (0.5, 2.0), refused=(5.1, -0.1), resolution=1e-3)]

    def set_volts(self, volts: float) -> None:
        Port("supply", 0, 5, "V").check(torch.tensor([volts]))
        self.messages += 1
        self.volts = round(volts, 3)

    def energise(self) -> bool:
        self.on = True
        return True

    def safe(self) -> None:
        self.on = False

    def is_safe(self) -> bool:
        return not self.on

    def sent(self) -> int:
        return self.messages

    def close(self) -> None:
        self.on = False


class ComesUpOn(Supply):
    def __init__(self) -> None:
        super().__init__()
        self.on = True


class NeverOff(Supply):
    def safe(self) -> None: ...


class LeftOn(Supply):
    def close(self) -> None: ...


class Truncates(Supply):
    def set_volts(self, volts: float) -> None:
        super().set_volts(min(max(volts, 0.0), 5.0))


class SendsFirst(Supply):
    def set_volts(self, volts: float) -> None:
        self.messages += 1
        super().set_volts(volts)


class Rounds(Supply):
    def set_volts(self, volts: float) -> None:
        super().set_volts(volts)
        self.volts = round(volts)


class NeverOn(Supply):
    def energise(self) -> bool:
        return True


class Anybody(Supply):
    def identify(self) -> object:
        return object()


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (ComesUpOn, "[unsafe] opening leaves the outputs safe"),
        (NeverOff, "[unsafe] safe() is safe: an output stayed on"),
        (LeftOn, "[unsafe] close() is safe: an output stayed on"),
        (Truncates, "[unsafe] voltage refuses what is out of range, sending nothing: 5.1 was taken"),
        (SendsFirst, "5.1 was refused, but 1 messages were sent"),
        (Rounds, "[wrong] voltage reads back as it was set: set 0.5, found 0"),
        (NeverOn, "the outputs did not switch on"),
        (Anybody, "[wrong] says who it is"),
    ],
)
def test_a_broken_instrument_is_found(broken: type[Supply], found: str) -> None:
    assert check_instrument(Supply).passed
    with pytest.raises(ContractError) as refusal:
        check_instrument(broken)
    assert found in str(refusal.value)
