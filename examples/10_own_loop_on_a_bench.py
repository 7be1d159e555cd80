"""Your own loop on a bench: guarded instruments, a network of torch around their node, and gradients by aDFA.

A process of its own makes the outputs safe if this program dies; they are off and read back when the block ends.

Prints: who answered, the error of a fit to sin(pi x) as it falls, and how often the node was asked.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

import hil

BENCH = Path(__file__).resolve().parents[1] / "benches" / "mzm_awg_scope.toml"
torch.manual_seed(0)
x = torch.linspace(-1, 1, 128).unsqueeze(1)
wanted = torch.sin(torch.pi * x)

with hil.open(BENCH) as bench:
    print(bench)
    node = hil.nn.Physical(bench, "adfa", gain=1.5, overflow="fold", period=7.04, features=40)
    layers = torch.nn.Sequential(torch.nn.Linear(1, 40), node, torch.nn.Linear(40, 1))
    net = hil.nn.DirectFeedback(layers, outputs=1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(201):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(net(x), wanted)
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:>3}   root mean square error {loss.sqrt():.3f}")
    print(f"{node.passes:,} node evaluations, {node.overflow(layers[0](x)):.1%} of the drives folded at the end")
    save_file(net.state_dict(), "sine.safetensors")
