"""Your own learner: an object with `step` and `predict`. This one is direct feedback alignment with random signs.

Prints: the test accuracy of the rule. A step sees what was measured, never what answered, and fills the gradients.
"""

import torch

import hil
from hil.network import fill
from sim_devices.mach_zehnder import MachZehnder


class SignFeedback(torch.nn.Module):  # a module, so that a checkpoint holds its buffers
    def __init__(self, width: int, classes: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(classes, width, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("B", 0.1 * drawn.sign())

    def step(self, net: hil.Network, x: torch.Tensor, label: torch.Tensor, rng: torch.Generator) -> dict[str, float]:
        trace = net.forward(x)  # the device is asked here
        scores = trace.outputs[-1]
        error = (scores.softmax(1) - torch.nn.functional.one_hot(label, scores.shape[1])) / len(x)  # dLoss/dscores
        fill(net, trace, [error @ self.get_buffer("B"), error])  # dLoss/dpre of each layer
        loss, right = torch.nn.functional.cross_entropy(scores, label), (scores.argmax(1) == label).float().mean()
        return {"loss": float(loss), "accuracy": float(right), "overflow": net.overflow(trace)}

    def predict(self, net: hil.Network, x: torch.Tensor) -> torch.Tensor:
        return net.forward(x).outputs[-1]


net = hil.dense([64, 100, 10], MachZehnder(v_pi_v=3.5), gain=1.0, overflow="clip")
run = hil.train(net, SignFeedback(100, 10, seed=0), hil.load("digits"), epochs=5, batch=32, lr=3e-3, run="runs/04_own")
print(f"random signs: test accuracy {run.test_accuracy:.1%}")
