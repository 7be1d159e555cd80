"""The contracts, over explicit lists: whoever adds a device, a twin or a learner adds one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from calibration.drift.steering import steered
from hil.conformance import check_device, check_learner, check_twin
from hil.device import Device
from hil.devices.meter import metered
from hil.feedback.feedback import Constant, Feedback, Sine
from hil.learner import Learner
from hil.learners.adfa import ADFA, ADFASettings
from hil.learners.adfa_snn import ADFASNN, ADFASNNSettings
from hil.learners.backprop import Backprop
from hil.learners.bptt import BPTT
from hil.learners.cma_es import CMAES, CMAESSettings
from hil.learners.dfa import DFA, DFASettings
from hil.learners.ffgaf import FFGAF, FFGAFSettings
from hil.learners.forward_forward import ForwardForward, ForwardForwardSettings
from hil.learners.last_layer import LastLayer
from hil.learners.mono_forward import MonoForward, MonoForwardSettings
from hil.learners.ottt import OTTT
from hil.learners.parts.one_pass import LossSettings
from hil.learners.parts.rate_learner import OnlineSettings, RateSettings
from hil.learners.pat import PAT
from hil.learners.pepg import PEPG, PEPGSettings
from hil.learners.phyll import PhyLL, PhyLLSettings
from hil.learners.saf import SAFE, SAFF
from hil.learners.spide import SPIDE, SPIDESettings
from hil.learners.spike_representation import SpikeRepresentation
from hil.learners.spsa import SPSA, SPSASettings
from hil.network import Network
from hil.task import takes_task
from hil.twin import Twin
from sim_devices.coupled_nodes import CoupledNodes
from sim_devices.crossbar import Crossbar
from sim_devices.delay_loop import DelayLoop
from sim_devices.dopant_network import DopantNetwork
from sim_devices.fibre_loop import FibreLoop
from sim_devices.iq_modulator import IqModulator
from sim_devices.lif_array import LifArray, Neuron
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.memristive_network import MemristiveNetwork
from sim_devices.microring_bank import MicroringBank
from sim_devices.mzi_mesh import MZIMesh
from sim_devices.phase_mask_camera import PhaseMaskCamera
from sim_devices.scattering import Scattering
from sim_devices.simulated import Simulated
from sim_devices.spiking_array import SpikingArray
from sim_devices.written import Written


def drifting() -> MachZehnder:
    return MachZehnder(drift_rad_per_s=1e-3, drift_rad_per_rts=1e-2, bandwidth_hz=2e7)


def written_crossbar() -> Written:
    base = {"rows": 4, "outputs": 3}
    return Written(of="sim_devices.crossbar:Crossbar", base=base, noise=0.03, drift=0.05, endurance=2.0, read_noise=0.01)


DEVICES: dict[str, Callable[[], Device]] = {
    "simulated mach-zehnder": lambda: Simulated(MachZehnder(), seed=1),
    "simulated mach-zehnder that drifts": lambda: Simulated(drifting(), seed=1),
    "metered": lambda: metered(Simulated(MachZehnder(), seed=1)),
    "steered": lambda: steered(Simulated(MachZehnder(), seed=1), margin=0.5),
    "spiking array": lambda: SpikingArray(LifArray(4, NEURON), seed=1),
    "spiking array of couples": lambda: SpikingArray(LifArray(4, couples=True), seed=1),
    "simulated mesh": lambda: Simulated(MZIMesh(modes=3), seed=1),
    "simulated dopant network": lambda: Simulated(DopantNetwork(drift_v_per_rt=1e-3), seed=1),
    "metered dopant network in small steps": lambda: metered(Simulated(DopantNetwork(max_step_v=0.1), seed=1)),
    "metered crossbar whose writes scatter": lambda: metered(Simulated(written_crossbar(), seed=1)),
    "simulated modulator and camera": lambda: Simulated(Scattering(macropixels=9, pixels=16), seed=1),
    "simulated delay loop": lambda: Simulated(DelayLoop(nodes=4, noise=1e-3, lowpass_hz=2e6), seed=1),
    "simulated fibre loop": lambda: Simulated(FibreLoop(nodes=4, noise=1e-3, phase_noise_rad=0.1), seed=1),
    "simulated memristive network": lambda: Simulated(MemristiveNetwork(electrodes=5, rows=3, columns=3, noise=1e-3), seed=1),
    "all at once": lambda: metered(steered(Simulated(drifting(), seed=1), period=2.0)),
}
TWINS: dict[str, tuple[Callable[[], MachZehnder], bool]] = {
    "mach-zehnder": (MachZehnder, True),
    "mach-zehnder without noise": (lambda: MachZehnder(noise=0.0), True),
    "mach-zehnder with a slow receiver": (lambda: MachZehnder(noise=0.0, bandwidth_hz=2e7), False),
    "mach-zehnder that drifts": (drifting, False),
}
CHANNELS: dict[str, Callable[[], Twin]] = {
    "mesh": lambda: MZIMesh(modes=3, specimen=2),
    "microrings": lambda: MicroringBank(channels=3, banks=2, specimen=2, drift_per_rt=1e-3),
    "phase mask": lambda: PhaseMaskCamera(macropixels=16, pixels=16, memory_frames=1e4),
    "mesh without noise": lambda: MZIMesh(modes=4, noise=0.0),
    "mesh as designed": lambda: MZIMesh(modes=5, specimen=-1, noise=0.0),
    "iq modulator": IqModulator,
    "iq modulator without noise": lambda: IqModulator(noise=0.0),
    "delay loop": lambda: DelayLoop(nodes=4, delay_s=0.5e-6, noise=1e-3, loop_noise=1e-3, bits=8),
    "delay loop without noise": lambda: DelayLoop(nodes=4),
    "Mackey-Glass loop with filters": lambda: DelayLoop(
        nodes=4, nonlinearity="mackey_glass", exponent=3.0, samples=2, sample_phase=0.4, lowpass_hz=2e6, highpass_hz=1e5
    ),
    "linear loop": lambda: DelayLoop(nodes=4, nonlinearity="linear", delay_s=0.2e-6),
    "coupled nodes": lambda: CoupledNodes(nodes=6, coupled=0.5, noise=1e-2, bits=8, leak=0.3),
    "coupled nodes that interfere, without noise": lambda: CoupledNodes(nodes=6, response="interference", coupled=0.5),
    "fibre loop": lambda: FibreLoop(nodes=4, delay_s=20e-9, noise=1e-3, phase_noise_rad=0.1, bits=8),
    "fibre loop without noise": lambda: FibreLoop(nodes=4, phase_rad=0.4),
    "fibre loop, coherent, without noise": lambda: FibreLoop(nodes=4, detection="coherent", delay_s=90e-9, local_rad=0.3),
    "memristive network": lambda: MemristiveNetwork(electrodes=5, rows=3, columns=3, noise=1e-3, bits=10, specimen=2),
    "memristive network without noise": lambda: MemristiveNetwork(electrodes=5, rows=3, columns=3),
    "memristive network, electrodes everywhere": lambda: MemristiveNetwork(electrodes=6, rows=3, columns=2),
    "dopant network": lambda: DopantNetwork(specimen=2, drift_v_per_rt=1e-3),
    "dopant network without noise": lambda: DopantNetwork(data=(1, 2, 7), noise=0.0),
    "crossbar": lambda: Crossbar(rows=4, outputs=3, specimen=2),
    "crossbar without noise": lambda: Crossbar(rows=4, outputs=3, noise=0.0, dac_bits=0, adc_bits=0, wire_ohm=50.0),
    "crossbar whose writes scatter": lambda: written_crossbar(),
    "modulator and camera": lambda: Scattering(macropixels=9, pixels=16, specimen=2),
    "modulator and camera without noise": lambda: Scattering(macropixels=9, pixels=16, noise=0.0, quantised=False),
}
NEURON = Neuron(noise=0.1, threshold_mismatch=0.05, refractory=1)
SPIKING: dict[str, Callable[[], LifArray]] = {
    "spiking neurons": lambda: LifArray(4),
    "spiking neurons with hard reset": lambda: LifArray(4, Neuron(reset="hard")),
    "spiking neurons as fabricated": lambda: LifArray(4, NEURON),
    "ternary couples": lambda: LifArray(4, couples=True),
}
SIGNED = ForwardForwardSettings(amplitude=1, negatives="uniform", peer=0.1, drive="pre", goodness="host")
TWO_STAGES = SPIDESettings(forward_steps=12, backward_steps=16)
BY_HAND = SPIDESettings(forward_steps=12, backward_steps=16, scale=10.0, quantum=2.0, loss="mse")
RUNNING = ADFASNNSettings(leak=1.0, v_rest=-1.0, error="running", presynaptic="trace")
MOVING = FFGAFSettings(temperature=1.0, adaptation="both", share_every=1, dropout=0.2)
Make = Callable[[Network, Any, torch.Generator, Callable[[Tensor], Tensor]], Learner]
LEARNERS: dict[str, Make] = {
    "adfa": lambda net, task, rng, model: ADFA.build(net, ADFASettings(), task, rng, model),
    "adfa mse, sparse": lambda net, n, rng, model: ADFA(Feedback(Sine(phase=1.2), sparsity=0.2), (12, 12), n, rng, "mse"),
    "adfa, no derivative at all": lambda net, n, rng, model: ADFA(Feedback(Constant(), "sign"), (12, 12), n, rng),
    "dfa": lambda net, task, rng, model: DFA.build(net, DFASettings(), task, rng, model),
    "backprop": lambda net, task, rng, model: Backprop.build(net, LossSettings(), task, rng, model),
    "pat": lambda net, task, rng, model: PAT.build(net, LossSettings(), task, rng, model),
    "pat mse": lambda net, n, rng, model: PAT.build(net, LossSettings("mse"), n, rng, model),
    "spsa": lambda net, task, rng, model: SPSA.build(net, SPSASettings(directions=16), task, rng, model),
    "spsa, orthogonal": lambda net, task, rng, model: SPSA.build(
        net, SPSASettings("orthogonal", directions=16), task, rng, model
    ),
    "weight perturbation": lambda net, task, rng, model: SPSA.build(
        net, SPSASettings("normal", directions=16), task, rng, model
    ),
    "pepg": lambda net, task, rng, model: PEPG.build(net, PEPGSettings(size=0.05, directions=16), task, rng, model),
    "cma-es": lambda net, task, rng, model: CMAES.build(net, CMAESSettings(size=0.1, population=32), task, rng, model),
    "mono-forward": lambda net, n, rng, model: MonoForward.build(net, MonoForwardSettings(), n, rng, model),
    "last layer": lambda net, task, rng, model: LastLayer.build(net, LossSettings(), task, rng, model),
    "forward-forward": lambda net, n, rng, model: ForwardForward.build(net, ForwardForwardSettings(amplitude=3), n, rng, model),
    "forward-forward, signed drive, peers": lambda net, n, rng, model: ForwardForward.build(net, SIGNED, n, rng, model),
    "phyll": lambda net, n, rng, model: PhyLL.build(net, PhyLLSettings(), n, rng, model),
    "phyll, inner steps": lambda net, n, rng, model: PhyLL.build(net, PhyLLSettings(inner_steps=3, phi="relu"), n, rng, model),
    "ffgaf": lambda net, n, rng, model: FFGAF.build(net, FFGAFSettings(temperature=1.0), n, rng, model),
    "ffgaf, moving shares, dropout": lambda net, n, rng, model: FFGAF.build(net, MOVING, n, rng, model),
}

SPIKING_LEARNERS: dict[str, Make] = {
    "spide": lambda net, n, rng, model: SPIDE.build(net, TWO_STAGES, n, rng, model),
    "adfa_snn": lambda net, n, rng, model: ADFASNN.build(net, ADFASNNSettings(leak=1.0, v_rest=-1.0), n, rng, model),
    "adfa_snn, running error": lambda net, n, rng, model: ADFASNN.build(net, RUNNING, n, rng, model),
    "saf_e": lambda net, n, rng, model: SAFE.build(net, OnlineSettings(leak=1.0, v_rest=-1.0), n, rng, model),
    "saf_f": lambda net, n, rng, model: SAFF.build(net, RateSettings(leak=1.0, v_rest=-1.0), n, rng, model),
    "saf_f, dropout": lambda net, n, rng, model: SAFF.build(
        net, RateSettings(leak=1.0, v_rest=-1.0, dropout=0.2), n, rng, model
    ),
    "ottt": lambda net, n, rng, model: OTTT.build(net, OnlineSettings(leak=1.0, v_rest=-1.0), n, rng, model),
    "spike representation": lambda net, n, rng, model: SpikeRepresentation.build(
        net, RateSettings(leak=1.0, v_rest=-1.0), n, rng, model
    ),
    "bptt": lambda net, n, rng, model: BPTT.build(net, OnlineSettings(leak=1.0, v_rest=-1.0), n, rng, model),
    "spide, scale by hand, mse": lambda net, n, rng, model: SPIDE.build(net, BY_HAND, n, rng, model),
}


@pytest.mark.parametrize("make", DEVICES.values(), ids=list(DEVICES))
def test_device(make: Callable[[], Device]) -> None:
    assert check_device(make).passed


@pytest.mark.parametrize(("make", "rows_are_alone"), TWINS.values(), ids=list(TWINS))
def test_twin(make: Callable[[], MachZehnder], rows_are_alone: bool) -> None:
    assert check_twin(make, rows_are_alone).passed


@pytest.mark.parametrize("make", CHANNELS.values(), ids=list(CHANNELS))
def test_twin_of_many_channels(make: Callable[[], Twin]) -> None:
    assert check_twin(make).passed


@pytest.mark.parametrize("make", SPIKING.values(), ids=list(SPIKING))
def test_spiking_twin(make: Callable[[], LifArray]) -> None:
    assert check_twin(make, exact_slope=False).passed


@pytest.mark.parametrize("make", LEARNERS.values(), ids=list(LEARNERS))
def test_learner(make: Make) -> None:
    report = check_learner(make)
    assert len(report.passed) == 9 + takes_task(make)  # numbers besides
    assert not report.skipped


@pytest.mark.parametrize("make", SPIKING_LEARNERS.values(), ids=list(SPIKING_LEARNERS))
def test_spiking_learner(make: Make) -> None:
    assert len(check_learner(make, spiking=True).passed) == 9
