"""Errors carried back through a synapse, with the weights of the forward pass.

    dL/dinput = delta dpre/dinput        W^T delta for a linear synapse
    dL/dtheta = delta dpre/dtheta        added to `.grad`

Only learners that are allowed to know the weights at the place of the error use `carried`. Devices are never differentiated;
models of them are, by `pulled`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hil.network import Layer, Network, Trace, accumulate, statistics_kept


def carried(synapse: nn.Module, inputs: Tensor, delta: Tensor) -> Tensor:
    """Add the gradient of the synapse at `inputs` (batch, n_in) for dL/dpre `delta`; returns dL/dinputs."""
    if type(synapse) is nn.Linear:
        accumulate(synapse, inputs, delta)
        return delta @ synapse.weight.detach()
    params = [param for param in synapse.parameters() if param.requires_grad]
    with torch.enable_grad(), statistics_kept(synapse):
        point = inputs.detach().requires_grad_(True)
        answer = synapse(point)
    found = torch.autograd.grad(answer, [point, *params], delta, allow_unused=True)
    for param, grad in zip(params, found[1:], strict=True):
        if grad is not None:
            param.grad = grad if param.grad is None else param.grad.add_(grad)
    return torch.zeros_like(inputs) if found[0] is None else found[0]


def pulled_through(layer: Layer, model: Callable[..., Tensor], pre: Tensor, delta: Tensor) -> Tensor:
    """dL/dpre by a model of the device of a layer, from dL/doutput; the gradient of what is programmed is added to `.grad`.

    Args:
        layer: with a device.
        model: as of Layer.through.
        pre: (batch, n), as it was measured at.
        delta: dL/doutput.
    """
    point, params = pre.detach().requires_grad_(True), layer.params
    wanted = [point] if params is None or not params.requires_grad else [point, params]
    with torch.enable_grad():
        answer = layer.through(model, point)
    found, *more = torch.autograd.grad(answer, wanted, delta)
    for grad in more:
        assert params is not None
        params.grad = grad if params.grad is None else params.grad.add_(grad)
    return found


def pulled(act: Callable[[Tensor], Tensor], at: Tensor, delta: Tensor) -> Tensor:
    """dL/dinput of the model `act` at the inputs `at`, from dL/doutput."""
    point = at.detach().requires_grad_(True)
    with torch.enable_grad():
        answer = act(point)
    (found,) = torch.autograd.grad(answer, point, delta)
    return found


def modelled(net: Network, model: Callable[..., Tensor], x: Tensor) -> Trace:
    """Make the pass of x (batch, features) that a model of the devices predicts, as a graph where gradients are on.

    Raises:
        OutOfRange: a drive that the device would refuse.
    """
    inputs, pre, outputs = [], [], []
    h = x
    for layer in net.stack:
        inputs.append(h)
        pre.append(layer.synapse(h))
        refuse_beyond(layer, pre[-1])
        h = layer.through(model, pre[-1])
        outputs.append(h)
    return Trace(tuple(inputs), tuple(pre), tuple(outputs))


def refuse_beyond(layer: Layer, pre: Tensor) -> None:
    """Refuse, for a model in the place of a device, what the device would refuse. Raises: OutOfRange."""
    if layer.device is not None and layer.encode is not None:
        layer.device.spec.inputs.check(layer.drive(pre.detach()))
