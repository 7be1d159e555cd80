"""The torch tile of aihwkit at work, in a process of its own; PYTHONPATH has the sources of aihwkit.

python benchmarks/twins_crossbar_peer.py
stdin: a line of JSON a case, see `answer`; stdout: a line of JSON each

The C++ part of aihwkit (rpu_base) is not built: its torch tile does not use it, but its packages import it. An empty module
stands in for it.
"""

from __future__ import annotations

import json
import sys
import time
import types
from typing import Any


class Absent(types.ModuleType):
    """A module of the C++ part: every name in it is a class without members."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


base = Absent("aihwkit.simulator.rpu_base")
base.tiles, base.devices, base.cuda = (Absent(name) for name in ("tiles", "devices", "cuda"))
base.cuda.is_compiled = lambda: False
extension = types.ModuleType("aihwkit.extension")
extension.extension_ops = None  # type: ignore[attr-defined]
sys.modules |= {base.__name__: base, extension.__name__: extension}

import torch  # noqa: E402
from aihwkit.simulator.configs import TorchInferenceRPUConfig, TorchInferenceRPUConfigIRDropT  # noqa: E402
from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType  # noqa: E402
from aihwkit.simulator.tiles.torch_tile import TorchSimulatorTile  # noqa: E402
from aihwkit.simulator.tiles.torch_tile_irdrop_t import TorchSimulatorTileIRDropT  # noqa: E402

tiles: dict[str, tuple[Any, torch.Tensor]] = {}


def tile_of(case: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """The tile of a case, and its inputs: weights and inputs from -1 to 1, of the generator of the case's seed."""
    config = TorchInferenceRPUConfigIRDropT() if case["wires"] else TorchInferenceRPUConfig()
    io = config.forward
    io.noise_management, io.bound_management = NoiseManagementType.NONE, BoundManagementType.NONE
    io.inp_bound, io.out_bound, io.out_noise = 1.0, case["bound"], case["noise"]
    io.inp_res = io.out_res = 1 / (2 ** case["bits"] - 2)
    rows, outputs = case["rows"], case["outputs"]
    if case["wires"]:
        config.mapping.max_input_size, config.forward.ir_drop_segments = rows, min(rows, 8)
    tile = (TorchSimulatorTileIRDropT if case["wires"] else TorchSimulatorTile)(rows, outputs, config)
    rng = torch.Generator().manual_seed(case["seed"])
    tile.set_weights((torch.rand(rows, outputs, generator=rng) * 2 - 1).T)
    return tile, torch.rand(case["batch"], rows, generator=rng) * 2 - 1


@torch.no_grad()
def answer(case: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the processor for `times` forwards, and, without noise, the outputs."""
    key = json.dumps({**case, "times": 0})
    if key not in tiles:
        tiles[key] = tile_of(case)
    tile, x = tiles[key]
    found = tile.forward(x, is_test=True)
    start = time.process_time()
    for _ in range(case["times"]):
        tile.forward(x, is_test=True)
    took = time.process_time() - start
    return {"s": took, "outputs": found.tolist() if not case["noise"] else None}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
