"""What is measured when a run begins: a run that was killed before config.toml had it goes on with that of its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from hil.build.measured import remembered, restore, table, with_measured
from hil.config.experiment import Experiment, experiment_of
from hil.config.read import dump
from hil.encoding import Decode, Encode
from hil.errors import ConfigError
from hil.network import Layer, Network
from hil.toml import loads
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

ONE: dict[str, Any] = {"network": {"widths": [2, 3, 2]}, "device": {"use": "mach_zehnder"}, "learner": {"use": "adfa"}}
EACH: dict[str, Any] = {**ONE, "network": {"widths": [2, 3, 3, 2]}, "device": [{"use": "mach_zehnder"}] * 2}


def experiment(given: dict[str, Any]) -> Experiment:
    return experiment_of(given, Path("here.toml"))


@pytest.mark.parametrize("given", [ONE, EACH], ids=["one device", "a device a layer"])
def test_what_is_missing_is_taken_from_the_checkpoint(given: dict[str, Any]) -> None:
    asked = experiment(given)
    decodes = [Decode(0.1, 0.2), Decode(0.3, 0.4)][: len(asked.device.layers) or 1]
    begun = with_measured(asked, decodes, 4)
    then = loads(dump(begun))
    found = remembered(asked, then)
    assert (found.network.pieces, found.measures) == (4, False)
    assert loads(dump(found)) == then
    assert remembered(begun, then) is begun
    assert remembered(asked, None) is asked
    uncut = with_measured(asked, decodes, None)
    assert loads(dump(remembered(uncut, then))) == then


def test_a_network_of_a_script_gets_them_back() -> None:
    def network() -> Network:
        device = Simulated(MachZehnder())
        return Network([Layer(nn.Linear(2, 3), device, Encode.onto(device.spec.inputs)), Layer(nn.Linear(3, 2))])

    begun, net = network(), network()
    begun.pieces, begun.stack[0].decode = 2, Decode(0.5, 0.25)
    restore(net, {"network": table(begun)})
    assert (net.pieces, net.stack[0].decode) == (2, Decode(0.5, 0.25))
    net.pieces = 8
    restore(net, {"network": table(begun)})
    assert net.pieces == 8  # the script says so
    with pytest.raises(ConfigError, match=r"network\.decode"):
        restore(net, {"network": {"decode": {"layer_1": {"zero": "much", "scale": 1.0}}}})
