"""A trained spiking network as a graph of NIR, which other simulators and neuromorphic chips read.

    Input -> Affine -> LIF -> ... -> Affine -> Output          dt is one time step, by the method of Euler

    ours    v[t] = lam v[t-1] + I[t]                            NIR    tau dv/dt = v_leak - v + R I
    tau = R = 1 / (1 - lam), v_leak = 0; lam = 1 is an IF node with R = 1

The gain and offset of the encoding are in the weights, mismatch of fabrication in tau and v_threshold. What NIR has no word for
stands in the metadata of the graph: x is sent at every one of `time_steps`, the scores are the mean of the output over them.
NIR knows the hard reset, to v_reset; where the metadata say reset = "soft", `v_threshold - v_reset` is taken away instead.

Source: Pedersen et al., Nat. Commun. 15, 8122 (2024), neuromorphic intermediate representation.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hil.build.training import built
from hil.commands.run import Run
from hil.config.experiment import read_experiment
from hil.devices.meter import Metered
from hil.encoding import factor
from hil.errors import UNTOUCHED, ConfigError
from hil.network import Layer, Network
from sim_devices.lif_array import LifArray
from sim_devices.spiking_array import SpikingArray

if TYPE_CHECKING:
    import nir

WHERE = "hil export --to nir"


def graph_of(run: Path) -> nir.NIRGraph:
    """The graph of a run's best weights and simulated neurons.

    Raises:
        ConfigError: no network of simulated neurons and linear synapses. RunError: no weights yet.
    """
    experiment = read_experiment(run / "config.toml", bench=run / "bench.toml")
    if experiment.device.kind != "chip":
        raise _refused("a node of another kind", 'a run with chip = "lif" in [device]')
    steps = getattr(experiment.learner.options, "time_steps", 1)
    with built(experiment) as made:
        made.training.net.load_state_dict(Run(run).state_dict())
        return graph(made.training.net, steps)


@torch.no_grad()
def graph(net: Network, time_steps: int) -> nir.NIRGraph:
    """The graph of a network.

    Args:
        net: linear synapses, a simulated array of neurons behind each but the last.
        time_steps: of an example.

    Raises:
        ConfigError: it has another synapse, another device, couples, a refractory time, or feedback.
    """
    import nir  # an extra

    if net.feedback is not None:
        raise _refused("a network with feedback", "one without")
    nodes: dict[str, Any] = {}
    resets = set()
    for number, layer in enumerate(net.stack):
        weight, bias = _affine(layer)
        if number == 0:
            nodes["input"] = nir.Input({"input": np.array([weight.shape[1]])})
        nodes[f"synapse_{number}"] = nir.Affine(weight, bias)
        if layer.device is not None:
            twin = _neurons(layer.device)
            nodes[f"neurons_{number}"] = _lif(twin)
            resets.add(twin.neuron.reset)
        else:
            nodes["output"] = nir.Output({"output": np.array([weight.shape[0]])})
    names = list(nodes)
    facts = {"time_steps": time_steps, "dt": 1, "input": "x at every step", "output": "mean over the steps"}
    return nir.NIRGraph(nodes, list(pairwise(names)), {**facts, "reset": " ".join(sorted(resets))})


def _affine(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Weight (n, m) and bias (n,) with the gain and offset of the encoding in them."""
    synapse, encode = layer.synapse, layer.encode
    if type(synapse) is not nn.Linear:
        raise _refused(f"a synapse of type {type(synapse).__name__}", "nn.Linear")
    bias = torch.zeros(synapse.out_features) if synapse.bias is None else synapse.bias.detach().cpu()
    weight = synapse.weight.detach().cpu()
    if encode is None:
        return weight.numpy().copy(), bias.numpy().copy()
    gain, offset = factor(encode.gain, bias), factor(encode.offset, bias)
    column = gain.unsqueeze(1) if isinstance(gain, torch.Tensor) else gain
    return (weight * column).numpy(), (bias * gain + offset).numpy()


def _neurons(device: Any) -> LifArray:
    inner = device.inner if isinstance(device, Metered) else device
    if not isinstance(inner, SpikingArray):
        raise _refused(f"a device of type {type(inner).__name__}", "simulated neurons, whose parameters are known")
    twin = inner.twin
    if twin.couples or twin.neuron.refractory:
        raise _refused("ternary couples, or a refractory time", "neurons of one threshold, without a refractory time")
    return twin


def _lif(twin: LifArray) -> nir.NIRNode:
    import nir

    threshold = (twin.neuron.v_th * twin.threshold_factor).cpu().numpy()
    reset = np.full_like(threshold, twin.neuron.v_rest)
    lam = twin.leaks.cpu().numpy().astype(np.float64)
    if (lam == 1).all():
        return nir.IF(r=np.ones_like(threshold), v_threshold=threshold, v_reset=reset)
    tau = (1 / np.maximum(1 - lam, 1e-9)).astype(np.float32)  # 1e-9: a neuron of a leaking array that fabrication left without
    return nir.LIF(tau=tau, r=tau, v_leak=np.zeros_like(threshold), v_threshold=threshold, v_reset=reset)


def _refused(got: str, allowed: str) -> ConfigError:
    return ConfigError("NIR has no word for this network", where=WHERE, got=got, allowed=allowed, outputs=UNTOUCHED)
