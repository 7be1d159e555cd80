"""A device as a layer of any torch program: your own loop, loss.backward(), and the rule that stands in for its derivative.

Prints: the test accuracy by three rules. Each is one argument; nothing ever differentiates the device. The same module stands
in a Lightning module: docs/how-to/use_in_torch.md.
"""

import torch
from safetensors.torch import save_model

import hil
from sim_devices.mach_zehnder import MachZehnder

data = hil.load("digits")


def trained(rule: str, epochs: int = 8) -> torch.nn.Module:
    torch.manual_seed(0)
    device = hil.nn.Physical(MachZehnder(v_pi_v=3.5), rule, gain=1.5, overflow="fold", period=7.0, features=100)
    net = torch.nn.Sequential(torch.nn.Linear(64, 100), device, torch.nn.Linear(100, 10))
    if rule == "adfa":  # it needs the error at the output: B carries it to the device, g stands in for the derivative
        net = hil.nn.DirectFeedback(net, outputs=10, feedback={"g": {"family": "sine", "frequency": 1.3, "phase": 1.2}})
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train)).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(data.train.x[rows]), data.train.y[rows]).backward()
            optimizer.step()
    return net


for rule in ("adfa", "pat", "straight_through"):
    net = trained(rule)
    with torch.no_grad():
        right = (net(data.test.x).argmax(1) == data.test.y).float().mean()
    print(f"{rule:<17} test accuracy {right:.1%}")
    save_model(net, f"{rule}.safetensors")  # the weights of the layers around it; the device itself has none
