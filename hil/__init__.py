"""Train physical neural networks with the hardware in the loop: all that a script needs.

    import hil

    inputs, outputs = hil.Port("dac", 0, 5, "V", size=16), hil.Port("adc", -10, 10, "V", size=16)
    device = hil.from_functions(write, read, inputs, outputs, safe)
    net = hil.dense([64, 16, 10], device, gain=0.5, offset=2.5, overflow="clip")
    run = hil.train(net, "adfa", hil.load("digits"), epochs=5, run="runs/first")

A name is imported when it is first used, so that `import hil` alone costs nothing. examples/ has a script for each of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hil.own_packages import check as _check

__version__ = "0.2.0"

if TYPE_CHECKING:
    from hil import nn as nn
    from hil.build.dense import dense as dense
    from hil.build.open_bench import open_bench_file as open
    from hil.commands.run import Run as Run
    from hil.commands.train_net import points as points
    from hil.commands.train_net import train as train
    from hil.data.dataset import Dataset as Dataset
    from hil.data.dataset import Split as Split
    from hil.data.dataset import load as load
    from hil.device import Chip as Chip
    from hil.device import Device as Device
    from hil.device import Port as Port
    from hil.device import Spec as Spec
    from hil.devices.functions import Functions as Functions
    from hil.devices.functions import from_functions as from_functions
    from hil.encoding import Decode as Decode
    from hil.encoding import Encode as Encode
    from hil.errors import HilError as HilError
    from hil.feedback.feedback import Feedback as Feedback
    from hil.learner import Learner as Learner
    from hil.network import Layer as Layer
    from hil.network import Network as Network
    from hil.network import Trace as Trace
    from hil.twin import Twin as Twin

_PLACES = {
    "Chip": "hil.device:Chip",
    "Dataset": "hil.data.dataset:Dataset",
    "Decode": "hil.encoding:Decode",
    "Device": "hil.device:Device",
    "Encode": "hil.encoding:Encode",
    "Feedback": "hil.feedback.feedback:Feedback",
    "Functions": "hil.devices.functions:Functions",
    "HilError": "hil.errors:HilError",
    "Layer": "hil.network:Layer",
    "Learner": "hil.learner:Learner",
    "Network": "hil.network:Network",
    "Port": "hil.device:Port",
    "Run": "hil.commands.run:Run",
    "Spec": "hil.device:Spec",
    "Split": "hil.data.dataset:Split",
    "Trace": "hil.network:Trace",
    "Twin": "hil.twin:Twin",
    "dense": "hil.build.dense:dense",
    "from_functions": "hil.devices.functions:from_functions",
    "load": "hil.data.dataset:load",
    "nn": "hil:nn",
    "open": "hil.build.open_bench:open_bench_file",
    "points": "hil.commands.train_net:points",
    "train": "hil.commands.train_net:train",
}

__all__ = [
    "Chip",
    "Dataset",
    "Decode",
    "Device",
    "Encode",
    "Feedback",
    "Functions",
    "HilError",
    "Layer",
    "Learner",
    "Network",
    "Port",
    "Run",
    "Spec",
    "Split",
    "Trace",
    "Twin",
    "dense",
    "from_functions",
    "load",
    "nn",
    "open",
    "points",
    "train",
]

if not TYPE_CHECKING:  # a type checker takes the names above, and no others

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        _check()
        module, _, attribute = _PLACES[name].partition(":")
        found = import_module(f"hil.{attribute}") if module == "hil" else getattr(import_module(module), attribute)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
