"""Layers in a row, each a synapse on the host followed by a black box; a pass through them gives a Trace.

    pre_l    = synapse_l( out_{l-1} )                    the host knows it exactly, and may differentiate it
    out_l    = decode_l( device_l( encode_l( pre_l ) ) )  measured; nothing differentiates it

What a device has programmed on it may be trained too: parameters of the layer, from -1 to 1 in the range of each channel
(Levels), which the device is given before it is asked.

The last layer has no device: it is the digital readout, and its output is its pre-activation. A layer of m K values shares
a device of K channels in time: value j of an example goes to channel j mod K of row j div K, and what the m rows answer stands
side by side in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hil.device import Chip, Device, Streaming, plain, program, reset
from hil.encoding import Decode, Encode, Levels
from hil.errors import ContractError


class Trace(NamedTuple):
    """The record of one pass, a tensor per layer; temporal nets have a leading time axis.

    Args:
        inputs: into the synapse.
        pre: the pre-activation that the host knows.
        outputs: what was measured, decoded.
    """

    inputs: tuple[Tensor, ...]
    pre: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Layer(nn.Module):
    """A synapse followed by a Device.

    Args:
        synapse: any differentiable module on the host, (batch, n_in) -> (batch, n_out).
        device: the black box, or None for a digital readout.
        encode, decode: between the host's numbers and the device's units; needed exactly if there is a device.
        params: what is programmed on the device and trained, (P,), from -1 to 1; None: nothing is.
        levels: from these to `spec.params` of the device; needed exactly if there are both.
    """

    def __init__(
        self, synapse: nn.Module, device: Device | None = None, encode: Encode | None = None, decode: Decode | None = None,
        params: nn.Parameter | None = None, levels: Levels | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if device is not None and encode is None:
            raise ContractError("a layer with a device needs an encoding", where="network", todo="give Encode.onto(port)")
        if (levels is None) != (device is None or params is None):
            raise ContractError(
                "parameters of a device, and the levels that they become, come together", where="network",
                got="levels alone" if params is None else "parameters alone", todo="give Levels.onto(device.spec.params)",
            )  # fmt: skip
        self.synapse = synapse
        self.device, self.encode, self.decode = device, encode, decode or Decode()
        self.params, self.levels = params, levels

    def program(self) -> None:
        """Program what is trained on the device; without such parameters nothing is done."""
        if self.device is not None and self.params is not None and self.levels is not None:
            program(self.device, self.levels(self.params.detach()))

    def measure(self, pre: Tensor) -> Tensor:
        """(…, n) pre-activations -> (…, n) outputs, through the device; or `pre` itself without one."""
        if self.device is None or self.encode is None:
            return pre
        self.program()
        rows = self._rows(pre.shape[-1])
        return self._read(self.device.forward(self._sent(pre, rows)), pre, rows)

    def drive(self, pre: Tensor) -> Tensor:
        """(…, n) pre-activations -> what the device is sent: the same shape, or (rows, K) of a layer that is shared in time."""
        return self._sent(pre, self._rows(pre.shape[-1]))

    def read(self, answer: Tensor, pre: Tensor) -> Tensor:
        """The device's answer to `drive(pre)` -> (…, n) outputs."""
        return self._read(answer, pre, self._rows(pre.shape[-1]))

    def _sent(self, pre: Tensor, rows: int) -> Tensor:
        assert self.encode is not None  # the caller chose a layer with a device
        drive = self.encode(pre)
        return drive if rows == 1 else drive.reshape(-1, drive.shape[-1] // rows)

    def _read(self, answer: Tensor, pre: Tensor, rows: int) -> Tensor:
        assert self.device is not None
        whole = plain(answer, self.device.spec.outputs.name, pre.device)
        return self.decode(whole if rows == 1 else whole.reshape(*pre.shape[:-1], -1))

    def through(self, model: Callable[..., Tensor], pre: Tensor) -> Tensor:
        """Return what a differentiable `model` of the device would give in the device's place.

        Args:
            model: drive -> reading; of a layer with parameters (drive, levels) -> reading.
            pre: (…, n).
        """
        if self.encode is None:
            return pre
        rows = self._rows(pre.shape[-1])
        sent = self._sent(pre, rows)
        answer = model(sent) if self.levels is None or self.params is None else model(sent, self.levels(self.params))
        return self.decode(answer if rows == 1 else answer.reshape(*pre.shape[:-1], -1))

    def answers(self, width: int) -> int:
        """Return how many outputs a layer of `width` pre-activations has."""
        size = None if self.device is None else self.device.spec.outputs.size
        return width if size is None else size * self._rows(width)

    def _rows(self, width: int) -> int:
        """Rows of the device that one example of `width` values takes."""
        size = None if self.device is None or self.device.spec.temporal else self.device.spec.inputs.size
        return 1 if size is None or width % size else width // size


class Network(nn.Module):
    """A tuple of layers, plus an optional feedback synapse from the last hidden layer to the first.

    Args:
        layers: at least one; devices only in hidden layers, and either all temporal or none.
        feedback: synapse that closes the loop of a recurrent net; used by the learners that need it.
        pieces: a batch is cut into this many pieces when every device is Streaming, so that the bench works on one piece
            while the host computes the next. 1 never cuts; None: as is measured when a run begins, and 1 until then.
        chip: where the arrays of a spiking network come from, for a learner that needs more of them.
    """

    def __init__(
        self, layers: Sequence[Layer], feedback: nn.Module | None = None, pieces: int | None = None, chip: Chip | None = None
    ) -> None:
        super().__init__()
        if not layers:
            raise ContractError("a network needs at least one layer", where="network")
        kinds = {layer.device.spec.temporal for layer in layers if layer.device is not None}
        if len(kinds) > 1:
            raise ContractError("static and temporal devices cannot be mixed in one network", where="network")
        self.layers = nn.ModuleList(layers)
        self.feedback = feedback
        self.pieces = pieces
        self.chip = chip
        self.temporal = kinds == {True}

    @property
    def programmed(self) -> list[nn.Parameter]:
        """What is programmed on devices and trained, in the order of the layers."""
        return [layer.params for layer in self.stack if layer.params is not None and layer.params.requires_grad]

    @property
    def stack(self) -> tuple[Layer, ...]:
        """The layers, typed."""
        return tuple(layer for layer in self.layers if isinstance(layer, Layer))

    @property
    def place(self) -> torch.device:
        """Device of torch that the weights are on, and so where x belongs."""
        return next((param.device for param in self.parameters()), torch.device("cpu"))

    @property
    def devices(self) -> tuple[Device, ...]:
        """The distinct devices, in the order of their first layer."""
        seen: dict[int, Device] = {id(la.device): la.device for la in self.stack if la.device is not None}
        return tuple(seen.values())

    @torch.no_grad()
    def bound(self) -> None:
        """Bring parameters that were moved beyond the range of their device back to its edge."""
        for layer in self.stack:
            if layer.params is not None:
                layer.params.clamp_(-1, 1)

    def reset(self) -> None:
        """Forget the temporal state of every device."""
        for device in self.devices:
            reset(device)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Trace:
        """Make one pass of static nodes, x (batch, features); ask each device once per layer, and per piece if streaming."""
        if self.temporal:
            raise ContractError("a temporal network runs in steps()", where="network")
        pieces = self.pieces or 1
        if 1 < pieces <= len(x) and self.devices and all(isinstance(device, Streaming) for device in self.devices):
            return self._streamed(x, pieces)  # what a device can do is asked last: it takes a tenth of the time of a pass
        return self._pass(x)

    def _pass(self, x: Tensor) -> Trace:
        inputs, pre, outputs = [], [], []
        h = x
        for layer in self.stack:
            inputs.append(h)
            a = layer.synapse(h)
            h = layer.measure(a)
            pre.append(a)
            outputs.append(h)
        return Trace(tuple(inputs), tuple(pre), tuple(outputs))

    def _streamed(self, x: Tensor, pieces: int) -> Trace:
        """Move pieces through the layers in turn: while the bench has some of them, the host prepares the next one.

        A piece goes on to the next layer as soon as it is answered, whether the pieces behind it are answered or not.
        """
        coming: list[Callable[[], Tensor]] = [partial(_same, h) for h in x.chunk(pieces)]
        inputs, pre, outputs = list[Tensor](), list[Tensor](), list[Tensor]()
        for layer in self.stack:
            device = layer.device if layer.encode is not None else None
            hs, a, following = [], [], list[Callable[[], Tensor]]()
            if layer.params is not None:  # what is programmed changes only when nobody is on the way through the device
                coming = [partial(_same, piece()) for piece in coming]
                layer.program()
            for piece in coming:
                hs.append(piece())
                a.append(layer.synapse(hs[-1]))
                if isinstance(device, Streaming):
                    following.append(partial(_answered, layer, device.submit(layer.drive(a[-1])), a[-1]))
                else:
                    following.append(partial(_same, a[-1]))
            if inputs:
                outputs.append(torch.cat(hs))
            inputs.append(outputs[-1] if outputs else torch.cat(hs))
            pre.append(torch.cat(a))
            coming = following
        outputs.append(torch.cat([piece() for piece in coming]))
        return Trace(tuple(inputs), tuple(pre), tuple(outputs))

    @torch.no_grad()
    def steps(self, x: Tensor, chunk: int = 1) -> Iterator[Trace]:
        """Run temporal nodes: a Trace per chunk of time, so that a learner accumulates and memory stays flat in time.

        Args:
            x: (time, batch, features).
            chunk: time steps per Trace; the last may be shorter.

        Yields:
            Traces whose tensors are (chunk, batch, n). State is kept in the devices; call `reset()` before a new sequence.
        """
        if x.ndim < 3:
            raise ContractError(
                "a temporal network needs a time axis", where="network", got=f"shape {tuple(x.shape)}",
                allowed="(time, batch, features)",
            )  # fmt: skip
        for start in range(0, len(x), chunk):
            yield self._pass(x[start : start + chunk])

    def overflow(self, trace: Trace) -> float:
        """Share of pre-activations in `trace` outside the range of their devices, 0 to 1."""
        over = total = 0
        for layer, pre in zip(self.stack, trace.pre, strict=True):
            if layer.encode is not None:
                over += layer.encode.overflowing(pre)
                total += pre.numel()
        return over / total if total else 0.0


def _same(h: Tensor) -> Tensor:
    return h


def _answered(layer: Layer, answer: Future[Tensor], pre: Tensor) -> Tensor:
    return layer.read(answer.result(), pre)


def fill(net: Network, trace: Trace, deltas: Iterable[Tensor]) -> None:
    """Overwrite `.grad` of every synapse: the end of a learner's step, from its own dLoss/dpre of every layer.

    Args:
        net: the network.
        trace: of the pass that the deltas belong to.
        deltas: one per layer, each the shape of the layer's pre-activation.
    """
    net.zero_grad(set_to_none=True)
    for layer, inputs, delta in zip(net.stack, trace.inputs, deltas, strict=True):
        accumulate(layer.synapse, inputs, delta)


def accumulate(synapse: nn.Module, inputs: Tensor, delta: Tensor) -> None:
    """Add to `.grad` the exact gradient of the synapse alone: the vector-Jacobian product of `synapse(inputs)` with `delta`.

    Args:
        synapse: any differentiable module.
        inputs: (batch, n_in) or (time, batch, n_in).
        delta: dLoss/dpre, the shape of `synapse(inputs)`.
    """
    if type(synapse) is nn.Linear:  # the case that matters for speed, without a graph
        flat_delta, flat_inputs = delta.flatten(0, -2), inputs.flatten(0, -2)
        if synapse.weight.requires_grad and synapse.weight.grad is not None:
            synapse.weight.grad.addmm_(flat_delta.t(), flat_inputs)
        else:
            _add(synapse.weight, flat_delta.t() @ flat_inputs)
        if synapse.bias is not None:
            _add(synapse.bias, flat_delta.sum(0))
        return
    params = [p for p in synapse.parameters() if p.requires_grad]
    if not params:
        return
    with torch.enable_grad(), statistics_kept(synapse):
        answer = synapse(inputs.detach())
    for param, grad in zip(params, torch.autograd.grad(answer, params, delta, allow_unused=True), strict=True):
        if grad is not None:
            _add(param, grad)


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Hold running statistics: a gradient may run a synapse once more, at rates or traces that no pass will send."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    moving = [norm for norm in norms if norm.training]
    for norm in moving:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in moving:
            norm.track_running_stats = True


def _add(param: Tensor, grad: Tensor) -> None:
    if not param.requires_grad:
        return
    param.grad = grad if param.grad is None else param.grad.add_(grad)
