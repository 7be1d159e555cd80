from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.encoding import Decode, Encode
from hil.errors import ContractError
from hil.network import Layer, Network, Trace, accumulate, fill, statistics_kept
from hil.seeding import generator


class Sine:
    """A static node without noise, that notes what it is asked."""

    def __init__(self, size: int | None = None) -> None:
        self.spec = Spec(Port("sine", -4, 4, "V", size), Port("sine out", -1, 1, "V", size), provenance="twin")
        self.asked: list[int] = []

    def program(self, params: Tensor) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        self.asked.append(len(x))
        return x.sin()


class Streamed(Sine):
    """The same through a worker thread; notes the highest number of answers that were due at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.lock, self.due, self.most = ThreadPoolExecutor(1), threading.Lock(), 0, 0

    def submit(self, x: Tensor) -> Future[Tensor]:
        with self.lock:
            self.due += 1
            self.most = max(self.most, self.due)

        def answer() -> Tensor:
            with self.lock:
                self.due -= 1
            return self.forward(x)

        return self.pool.submit(answer)

    def close(self) -> None:
        self.pool.shutdown()


class Integrator(Sine):
    """A temporal node: the running sum of its drive."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = Spec(Port("in", -9, 9), Port("out", -99, 99), temporal=True, provenance="twin")
        self.sum: Tensor | None = None

    def reset(self) -> None:
        self.sum = None

    def forward(self, x: Tensor) -> Tensor:
        sums = x.cumsum(0) + (0 if self.sum is None else self.sum)
        self.sum = sums[-1]
        return sums


def x(batch: int = 6) -> Tensor:
    return torch.randn(batch, 5, generator=generator(0, 0, "x"))


def network(device: Sine, pieces: int = 1) -> Network:
    torch.manual_seed(0)
    encode, decode = Encode.onto(device.spec.inputs, 0.5, 0.1, "clip"), Decode(0.2, 0.5)
    synapses = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)
    return Network([*(Layer(s, device, encode, decode) for s in synapses[:-1]), Layer(synapses[-1])], pieces=pieces)


def test_trace_is_what_happened_layer_by_layer() -> None:
    net = network(Sine())
    trace = net(x())
    assert trace.inputs[0].equal(x())
    h = x()
    for layer, given, pre, out in zip(net.stack, *trace, strict=True):
        assert given.equal(h)
        assert torch.allclose(pre, layer.synapse(h))
        h = pre if layer.device is None else ((pre * 0.5 + 0.1).clamp(-4, 4).sin() - 0.2) / 0.5
        assert torch.allclose(out, h, atol=1e-6)
    assert trace.outputs[-1].equal(trace.pre[-1])
    assert not any(t.requires_grad for part in trace for t in part)


def test_each_device_is_asked_once_per_layer() -> None:
    device = Sine()
    network(device)(x())
    assert device.asked == [6, 6]


def test_model_in_the_place_of_the_device() -> None:
    net = network(Sine())
    trace = net(x())
    assert torch.allclose(net.stack[0].through(torch.sin, trace.pre[0]), trace.outputs[0], atol=1e-6)
    assert net.stack[2].through(torch.sin, trace.pre[2]) is trace.pre[2]


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_in_pieces_the_numbers_are_the_same(pieces: int) -> None:
    device = Streamed()
    wanted, found = network(Sine())(x()), network(device, pieces)(x())
    device.close()
    for one, other in zip(wanted, found, strict=True):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one, other, strict=True))
    assert len(device.asked) == 2 * pieces


def test_pieces_overlap() -> None:
    device = Streamed()
    gate = threading.Event()
    device.pool.submit(gate.wait)  # the bench is busy: nothing is answered while the host goes on sending
    net = network(device, 3)
    worker = ThreadPoolExecutor(1)
    trace = worker.submit(net, x())
    while device.most < 3:
        assert not trace.done()
    gate.set()
    assert trace.result(10).outputs[-1].shape == (6, 3)
    worker.shutdown()
    device.close()


def test_a_batch_smaller_than_the_pieces_goes_whole() -> None:
    device = Streamed()
    network(device, 4)(x(3))
    device.close()
    assert device.asked == [3, 3]


def test_time_goes_in_chunks_and_state_stays_in_the_device() -> None:
    device = Integrator()
    net = Network([Layer(nn.Linear(5, 4), device, Encode.onto(device.spec.inputs)), Layer(nn.Linear(4, 3))])
    sequence = torch.randn(7, 2, 5, generator=generator(0, 0, "x")) * 0.1
    whole = list(net.steps(sequence, chunk=7))
    net.reset()
    parts = list(net.steps(sequence, chunk=3))
    assert [len(t.outputs[-1]) for t in parts] == [3, 3, 1]
    assert torch.allclose(torch.cat([t.outputs[-1] for t in parts]), whole[0].outputs[-1], atol=1e-6)
    with pytest.raises(ContractError, match="steps"):
        net(x())
    with pytest.raises(ContractError, match="time axis"):
        next(net.steps(x()))


def test_wrong_networks_are_refused() -> None:
    with pytest.raises(ContractError, match="at least one layer"):
        Network([])
    with pytest.raises(ContractError, match="encoding"):
        Layer(nn.Linear(2, 2), Sine())
    mixed = [Layer(nn.Linear(2, 2), d, Encode.onto(d.spec.inputs)) for d in (Sine(), Integrator())]
    with pytest.raises(ContractError, match="mixed"):
        Network([*mixed, Layer(nn.Linear(2, 2))])


def test_devices_are_distinct_and_not_part_of_the_state() -> None:
    device, other = Sine(), Sine()
    encode = Encode.onto(device.spec.inputs)
    net = Network([Layer(nn.Linear(2, 2), d, encode) for d in (device, other, device)] + [Layer(nn.Linear(2, 2))])
    assert net.devices == (device, other)
    assert set(net.state_dict()) == {f"layers.{n}.synapse.{p}" for n in range(4) for p in ("weight", "bias")}


def test_overflow_is_the_share_of_all_pre_activations_with_a_device() -> None:
    net = network(Sine())
    inside, outside = torch.zeros(2, 4), torch.full((2, 4), 99.0)
    trace = Trace((x(2),) * 3, (inside, outside, torch.full((2, 3), 99.0)), (x(2),) * 3)
    assert net.overflow(trace) == 0.5
    assert Network([Layer(nn.Linear(5, 3))]).overflow(Trace((x(),), (x(),), (x(),))) == 0.0


SYNAPSES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 4), (6, 5)),
    "linear without bias": (lambda: nn.Linear(5, 4, bias=False), (6, 5)),
    "linear over time": (lambda: nn.Linear(5, 4), (3, 6, 5)),
    "convolution": (lambda: nn.Conv2d(1, 2, 3, padding=1), (6, 1, 4, 4)),
    "composed": (lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)), (6, 5)),
}


@pytest.mark.parametrize(("make", "shape"), SYNAPSES.values(), ids=list(SYNAPSES))
@pytest.mark.parametrize("before", [False, True])
def test_gradient_of_the_synapse_is_exact_and_added(
    make: Callable[[], nn.Module], shape: tuple[int, ...], before: bool
) -> None:
    torch.manual_seed(1)
    synapse = make()
    given = torch.randn(shape)
    answer = synapse(given)
    delta = torch.randn(answer.shape)
    wanted = torch.autograd.grad(answer, list(synapse.parameters()), delta)
    for param in synapse.parameters():
        param.grad = torch.ones_like(param) if before else None
    with torch.no_grad():
        accumulate(synapse, given, delta)
    for param, grad in zip(synapse.parameters(), wanted, strict=True):
        assert param.grad is not None
        assert torch.allclose(param.grad, grad + (1 if before else 0), atol=1e-5)
        assert not param.grad.requires_grad


@pytest.mark.parametrize(("make", "shape"), SYNAPSES.values(), ids=list(SYNAPSES))
def test_a_frozen_synapse_gets_no_gradient(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    synapse = make().requires_grad_(False)
    given = torch.randn(shape)
    accumulate(synapse, given, torch.randn(synapse(given).shape))
    assert all(param.grad is None for param in synapse.parameters())


def test_fill_overwrites_and_needs_a_delta_for_every_layer() -> None:
    net = network(Sine())
    trace = net(x())
    deltas = [torch.ones_like(pre) for pre in trace.pre]
    fill(net, trace, deltas)
    once = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    fill(net, trace, deltas)
    assert len(once) == 6
    assert all(p.grad is not None and torch.equal(p.grad, g) for p, g in zip(net.parameters(), once, strict=True))
    with pytest.raises(ValueError, match="shorter"):
        fill(net, trace, deltas[:2])


def test_a_synapse_used_twice_gets_both_gradients() -> None:
    device = Sine()
    shared = nn.Linear(4, 4)
    encode = Encode.onto(device.spec.inputs)
    net = Network([Layer(shared, device, encode), Layer(shared, device, encode), Layer(nn.Linear(4, 3))])
    trace = net(torch.ones(2, 4))
    deltas = [torch.ones_like(pre) for pre in trace.pre]
    fill(net, trace, deltas)
    assert shared.weight.grad is not None
    wanted = sum(delta.T @ given for delta, given in zip(deltas[:2], trace.inputs[:2], strict=True))
    assert torch.allclose(shared.weight.grad, wanted)  # type: ignore[arg-type]


def test_a_gradient_leaves_running_statistics_alone() -> None:
    norm = nn.BatchNorm1d(3)
    synapse = nn.Sequential(nn.Linear(4, 3), norm)
    before = {name: value.clone() for name, value in synapse.state_dict().items()}
    accumulate(synapse, torch.randn(5, 4), torch.ones(5, 3))
    assert all(torch.equal(value, before[name]) for name, value in synapse.state_dict().items())
    with pytest.raises(ZeroDivisionError), statistics_kept(synapse):
        raise ZeroDivisionError
    synapse(torch.randn(5, 4))
    assert int(norm.num_batches_tracked or 0) == 1


class Pairs(Streamed):
    """Two channels in, three out: sum, difference, and the second alone."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = Spec(Port("pairs", (-4, -3), (4, 3), "V", 2), Port("pairs out", -9, 9, "V", 3), provenance="twin")

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        self.asked.append(len(x))
        return torch.stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 1], x[:, 1]], 1)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_wide_layer_shares_a_device_of_few_channels_in_time(pieces: int) -> None:
    device = Pairs()
    layer = Layer(nn.Identity(), device, Encode.onto(device.spec.inputs, (1.0, -1.0)))
    assert (layer.answers(2), layer.answers(8)) == (3, 12)
    net = Network([layer, Layer(nn.Identity())], pieces=pieces)
    x = torch.tensor([[1.0, 2.0, 3.0, -1.0], [0.5, 0.25, -0.5, 2.0]])
    due = torch.tensor([[-1.0, 3.0, -2.0, 4.0, 2.0, 1.0], [0.25, 0.75, -0.25, -2.5, 1.5, -2.0]])
    trace = net(x)
    assert trace.outputs[0].equal(due)
    assert device.asked == ([4] if pieces == 1 else [2, 2])
    assert layer.through(lambda rows: Pairs().forward(rows), x).equal(due)
    assert layer.drive(x).shape == (4, 2)
    device.close()


def test_a_piece_goes_on_before_the_pieces_behind_it_are_answered() -> None:
    """The second piece of the first layer is answered once the first piece has come to the second layer."""

    class Late(Sine):
        def __init__(self) -> None:
            super().__init__()
            self.due: list[tuple[Future[Tensor], Tensor]] = []
            self.number = 0

        def submit(self, x: Tensor) -> Future[Tensor]:
            answer: Future[Tensor] = Future()
            self.due.append((answer, x))
            self.number += 1
            while self.due and self.number != 2:
                waiting, drive = self.due.pop(0)
                waiting.set_result(self.forward(drive))
            return answer

    wanted, found = network(Sine())(x()), network(Late(), 2)(x())
    for one, other in zip(wanted, found, strict=True):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one, other, strict=True))
