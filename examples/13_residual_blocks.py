"""A network that is not a chain: residual blocks whose activation is the node, trained by rules that never differentiate it.

Prints: the test accuracy by three rules. A block adds to its input what the node answers: h + node(W norm(h)). By "adfa" and
"dfa" the error at the output comes to every node through a matrix of its own; no block needs what later blocks send back.
"""

import torch

import hil
from sim_devices.mach_zehnder import MachZehnder

data = hil.load("digits")


class Block(torch.nn.Module):
    def __init__(self, device: hil.nn.Physical | MachZehnder, rule: str, inputs: int, width: int = 100) -> None:
        super().__init__()
        self.mix = torch.nn.Sequential(torch.nn.LayerNorm(inputs, elementwise_affine=False), torch.nn.Linear(inputs, width))
        self.node = hil.nn.Physical(device, rule, gain=1.5, overflow="fold", period=7.0, features=width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        y = self.node(self.mix(h))
        return h + y if h.shape == y.shape else y


for rule in ("adfa", "dfa", "pat"):
    torch.manual_seed(0)
    blocks = [Block(MachZehnder(v_pi_v=3.5), rule, 64)]
    blocks += [Block(blocks[0].node, rule, 100) for _ in range(3)]  # the same device stands behind every block
    net = torch.nn.Sequential(*blocks, torch.nn.Linear(100, 10))
    if rule != "pat":
        net = hil.nn.DirectFeedback(net, outputs=10, feedback={"g": {"family": "sine", "frequency": 1.3, "phase": 1.2}})
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for rows in (rows for _ in range(8) for rows in torch.randperm(len(data.train)).split(32)):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(data.train.x[rows]), data.train.y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        print(f"{rule:<5} test accuracy {(net(data.test.x).argmax(1) == data.test.y).float().mean():.1%}")
