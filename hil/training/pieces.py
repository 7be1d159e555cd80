"""Into how many pieces a batch is cut, so that host and instruments work at the same time: as measured on both.

    whole    upload | latency | read | host | upload | latency | read | host ...             a layer after the other
    pieces   upload | latency | read 1 upload 2 | latency | read 2 upload 1' | latency ...   the host works meanwhile

A piece hides host and upload behind the other one, and pays the latency of the instruments once more: which of the two is more
depends on batch, widths, host and instruments. So passes through the network are timed whole and in pieces, with shots that are
neither counted nor recorded; a plant that is simulated is put back. The fewest pieces win that are not clearly slower. Numbers
do not depend on the pieces beyond rounding, but the noise of the node falls otherwise: a run keeps what was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from torch import Tensor

from hil.device import Device, Restorable, Streaming
from hil.devices.meter import Metered
from hil.network import Layer, Network

GAIN = 0.95  # of the time with fewer pieces: less is no reason for more of them
LOST = 1.3  # so much slower, it is not tried again
ROUNDS, MOST = 3, 8


def chosen(net: Network, x: Tensor, clock: Callable[[], float] = time.perf_counter) -> int:
    """Return into how many pieces a batch like `x` is best cut.

    Args:
        net: the network, around devices that are counted; nothing of it changes.
        x: (batch, features), a batch of training examples.
        clock: seconds from any origin.

    Returns:
        1 where a device cannot stream, or cutting gains nothing.

    Raises: as the devices.
    """
    if net.temporal or not net.devices or any(layer.params is not None for layer in net.stack):
        return 1
    bare = {id(device): device.inner if isinstance(device, Metered) else device for device in net.devices}
    if not all(isinstance(device, Streaming) for device in bare.values()):
        return 1
    before = {id(device): _saved(device) for device in bare.values()}
    modes = [(module, module.training) for module in net.modules()]
    net.eval()  # no statistics of the synapses move
    try:
        tried = Network([
            Layer(layer.synapse, None if layer.device is None else bare[id(layer.device)], layer.encode, layer.decode)
            for layer in net.stack
        ])  # fmt: skip
        return _fastest(tried, x, clock)
    finally:
        for module, training in modes:
            module.training = training
        for device in bare.values():
            if isinstance(device, Restorable) and (state := before[id(device)]):
                device.restore(state)


def _fastest(net: Network, x: Tensor, clock: Callable[[], float]) -> int:
    best = 1
    while (more := 2 * best) <= min(MOST, len(x)):
        taken: dict[int, list[float]] = {best: [], more: []}
        best_s = more_s = 0.0
        for _ in range(ROUNDS):
            for pieces, seconds in taken.items():
                net.pieces = pieces
                net(x)  # sets the instruments for records of another length
                began = clock()
                net(x)
                seconds.append(clock() - began)
            best_s, more_s = (min(seconds) for seconds in taken.values())
            if more_s > LOST * best_s:
                break
        if more_s > GAIN * best_s:
            break
        best = more
    return best


def _saved(device: Device) -> Mapping[str, object]:
    return device.snapshot() if isinstance(device, Restorable) else {}
