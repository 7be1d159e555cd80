"""A fully connected network around a device, made from Python: hil.dense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hil.encoding import Decode, Encode, Overflow
from hil.errors import UNTOUCHED, ConfigError
from hil.network import Layer, Network
from hil.torch_device import float32_by_default

if TYPE_CHECKING:
    from hil.device import Chip, Device, Limit, Port
    from hil.training.transfer_curve import Transfer
    from hil.twin import Twin

WHERE = "hil.dense"


class Dense(Network):
    """A network that `dense` made.

    Args:
        transfer: the curve of its node as it was measured, or None.
    """

    def __init__(self, layers: Sequence[Layer], transfer: Transfer | None = None, chip: Chip | None = None) -> None:
        super().__init__(layers, chip=chip)
        self.transfer = transfer


@float32_by_default()
def dense(
    widths: Sequence[int],
    device: Device | Chip | Twin,
    *,
    gain: Limit = 1.0,
    offset: Limit = 0.0,
    overflow: Overflow = "refuse",
    period: Limit | None = None,
    decode: Decode | None = None,
    seed: int = 0,
) -> Dense:
    """Layers of weights with the device behind each of them but the last, which is the digital readout.

        drive = offset + gain * pre-activation          output = (reading - zero) / scale

    The device is swept over its whole input range, 8 times 201 drives: the middle of what it answers becomes the zero, half of
    the swing the scale, so that outputs fill -1 to 1. One device is shared by all layers, one after the other; from a chip of
    spiking neurons every layer gets an array of its own, which is not swept. Nor is a node with memory: the middle and half the
    range of its port are its zero and scale.

    Args:
        widths: numbers of values, from the features of the data to the classes: [64, 16, 10].
        device: a Device, an open bench, a chip, or a Twin, which is then simulated in this process.
        gain: drive per unit of pre-activation, in the unit of the device's input port.
        offset: drive at pre-activation 0, in the same unit; for example a bias point in the middle of the port.
        overflow: of drives beyond the limits: "refuse" raises, "clip" saturates, "fold" takes them into one `period`.
        period: of the device in its drive, in the same unit; needed by "fold". gain, offset and period may each be one number,
            or a tuple of one for each channel.
        decode: zero and scale, if they are known; then nothing is swept.
        seed: of the first weights, and of the noise of a Twin. The same seed gives the weights of a run from a file.

    Returns:
        a Network.

    Raises:
        ConfigError: widths that make no sense, or do not fit the device.
        ContractError: no device, or an encoding that makes no sense.
        OutOfRange, LinkError, InstrumentError, MeasurementError, ForeignError: from the sweep.

    Example:
        >>> import hil
        >>> from sim_devices.mach_zehnder import MachZehnder
        >>> net = hil.dense([64, 20, 10], MachZehnder(), gain=1.0, overflow="clip")
        >>> [layer.synapse.out_features for layer in net.stack]
        [20, 10]
    """
    import torch

    from hil import synapses
    from hil.build.network import Behind, Chain, on_chip, on_nodes
    from hil.seeding import key

    with torch.random.fork_rng(devices=[]):  # torch initialises modules from its global generator: keyed, then given back
        torch.manual_seed(key(seed, 0, "weights"))
        chain = Chain.of(synapses.dense(list(widths)), widths[0])
    source, chip = told_apart(device, seed)

    def encode(port: Port) -> Encode:
        return Encode.onto(port, gain, offset, overflow, period)

    if chip is not None:
        return Dense(on_chip(chain, chip, encode).stack, chip=chip)
    assert source is not None  # the one or the other
    encoding, known = encode(source.spec.inputs), decode or Decode()
    layers = on_nodes(chain, [Behind(source, encoding, known)], 1).stack  # refused before anything is driven
    if decode is not None or len(chain.synapses) == 1:
        return Dense(layers)
    if source.spec.memory:  # what it answers depends on the past: there is no curve to sweep
        for layer in layers[:-1]:
            layer.decode = Decode.of(source.spec.outputs)
        return Dense(layers)
    transfer = swept(source)
    found = transfer.decode()
    for layer in layers[:-1]:
        layer.decode = found
    return Dense(layers, transfer)


def told_apart(device: Any, seed: int, where: str = WHERE) -> tuple[Device | None, Chip | None]:
    """A node, or a chip; a Twin becomes a node.

    Raises:
        ConfigError: it is neither.
    """
    from hil.devices.stepped import stepped

    if isinstance(device, type):
        raise _no_device(where, f"the class {device.__name__}", f"make one of it: {device.__name__}(…)")
    if hasattr(device, "respond") and hasattr(device, "rest"):
        from sim_devices.simulated import Simulated

        return stepped(Simulated(device, seed)), None
    if getattr(device, "array", None) is not None:
        return None, device
    missing = [name for name in ("spec", "forward", "close") if not hasattr(device, name)]
    if missing:
        raise _no_device(
            where, f"{type(device).__name__} without {', '.join(missing)}", "give it these, or use hil.from_functions"
        )
    return stepped(device), None


def _no_device(where: str, got: str, todo: str) -> ConfigError:
    return ConfigError(
        "not a device", where=where, got=got, allowed="a Device, an open bench, a Chip or a Twin", outputs=UNTOUCHED, todo=todo
    )


def swept(device: Device) -> Transfer:
    """The transfer curve, measured; safe outputs before an error goes on."""
    from hil.build.open_bench import rested
    from hil.devices.meter import metered
    from hil.training.transfer_curve import measure

    try:
        return measure(metered(device))
    except BaseException as error:
        rested(device, error)
        raise
