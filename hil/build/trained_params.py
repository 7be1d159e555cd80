"""What is programmed on devices and trained: [params], or [device.params] of a device a layer.

Everything that can be refused without the device is refused here. How many parameters there are is asked of the twin, or of the
bench file; of any other device [params] says it, and it is held against the device once that is open.
"""

from __future__ import annotations

import torch
from torch import nn

from hil.build.channels import numbers
from hil.build.network import Chain, one_each
from hil.config.device import DeviceTable, ParamsTable
from hil.config.experiment import Experiment
from hil.config.resolve import LEARNERS, UNTOUCHED, resolve
from hil.device import Port
from hil.devices.meter import Metered
from hil.devices.programming import Verify
from hil.encoding import Levels
from hil.errors import ConfigError, Refused
from hil.learner import params_step, programs
from hil.seeding import generator
from hil.twin import Parametric, Twin


def with_params(chain: Chain, experiment: Experiment) -> Chain:
    """Return `chain` with the parameters that are trained on its devices, at their first values.

    Args:
        chain: the synapses.
        experiment: as it was read.

    Raises:
        ConfigError: they do not go with the device, the learner, or something else in the experiment.
    """
    device = experiment.device
    if device.layers:
        if experiment.params is not None:
            raise _wrong(
                experiment.params, "each of several devices has its own", "[params]", "[device.params]", "write it there"
            )
        one_each(len(device.layers), chain)
        pairs = [(layer.params, layer) for layer in device.layers]
    else:
        pairs = [(experiment.params, device)] * len(chain.hidden)
    if not any(table for table, _ in pairs):
        return chain
    found = [
        None if table is None else _first(table, _size(table, node, experiment), experiment, number)
        for number, (table, node) in enumerate(pairs)
    ]
    return Chain(chain.synapses, chain.widths, chain.feedback, tuple(found))


def levels_of(table: ParamsTable | None, device: Metered, size: int | None) -> Levels | None:
    """The levels of an open device, slowed and verified from now on as the file says; None: nothing is programmed on it.

    Args:
        table: [params].
        device: open.
        size: how many parameters are programmed.

    Raises:
        ConfigError: it has others, it cannot be read back, or the file would widen its limits.
    """
    if table is None:
        return None
    port: Port | None = device.spec.params
    if port is None or port.size != size:
        has = "nothing can be programmed on it" if port is None else f"size = {port.size or 1}, as many as it has"
        raise _wrong(
            table, f"{device.spec.inputs.name} has other parameters than are trained on it", f"size = {size}", has,
            "correct size, or remove [params]", "safe; whatever was opened is closed again",
        )  # fmt: skip
    if table.tolerance is not None:
        if not device.reads_back:
            raise _wrong(
                table, "what is programmed on this device cannot be read back, so it cannot be verified",
                f"tolerance = {table.tolerance:g}", "a device with reads_back, held() and rewrite()", "remove tolerance",
                "safe; whatever was opened is closed again",
            )  # fmt: skip
        device.verify(Verify(table.tolerance, table.tries))
    units = {"low": port.unit, "high": port.unit, "slew": f"{port.unit}/s"}
    low, high, slew = (None if getattr(table, key) is None else table.quantities(key, unit) for key, unit in units.items())
    try:
        levels = Levels.onto(port, low, high, table.bits, slew)
    except Refused as error:
        raise _wrong(
            table, f"{error.where}: {error.what}", error.got, error.allowed, "correct low, high and slew",
            "safe; whatever was opened is closed again",
        ) from None  # fmt: skip
    device.slow(levels.slew_per_s)
    return levels


def groups(modules: nn.Module, chain: Chain, experiment: Experiment) -> list[dict[str, object]]:
    """The parameters of an optimiser: those of the host, and those of each device whose [params] has an lr of its own.

    Args:
        modules: of the chain, where the host computes.
        chain: with its parameters.
        experiment: as it was read.
    """
    if not chain.params:
        return [{"params": list(modules.parameters())}]
    trained = [one for one in modules.parameters() if one.requires_grad]
    tables = [layer.params for layer in experiment.device.layers] or [experiment.params] * len(chain.params)
    own: dict[float, list[nn.Parameter]] = {}
    for table, params in zip(tables, chain.params, strict=True):
        if table is not None and table.lr and params is not None:
            own.setdefault(table.lr, []).append(params)
    apart = {id(one) for params in own.values() for one in params}
    host = [one for one in trained if id(one) not in apart]
    return [{"params": host}, *({"params": params, "lr": lr} for lr, params in own.items())]


def check_rule(rule: object, name: str, place: str) -> None:
    """Refuse a learner that leaves what is programmed as it is.

    Args:
        rule: its class.
        name: as the file has it.
        place: for the message.

    Raises:
        ConfigError.
    """
    if getattr(rule, "programs", None) is None:
        able = [one for one in LEARNERS if getattr(resolve(one, place, LEARNERS), "programs", None) is not None]
        raise ConfigError(
            "this learner does not train what is programmed on a device", where=place, got=name, allowed=", ".join(able),
            outputs=UNTOUCHED, todo="choose another learner, or remove [params]",
        )  # fmt: skip


def _size(table: ParamsTable, node: DeviceTable, experiment: Experiment) -> int:
    """How many parameters the device of `table` has. Raises: ConfigError: as of `with_params`."""
    learner = experiment.learner
    if table.lr != 0:
        check_rule(learner.rule, learner.use, learner.place)
    if node.kind == "chip":
        raise _wrong(
            table, "the parameters of neurons are set by their design", f'chip = "{node.chip}"', "one node, or [[device]]"
        )
    if node.instead is not None:
        raise _wrong(table, "nothing is programmed on a wire", f'instead = "{node.instead}"', "one of them")
    if experiment.sentinel is not None:
        raise _wrong(
            table, "a sentinel compares a node with what it was, and training makes another one of it", "[sentinel]",
            "one of them", "remove [sentinel]",
        )  # fmt: skip
    twin = _twin(node, experiment)
    if twin is not None and twin.spec.params is None:
        raise _wrong(table, "nothing can be programmed on this node", type(twin).__name__, "a node whose spec has params")
    by = programs(learner.rule, learner.options)
    if by == "model" and twin is not None and not isinstance(twin, Parametric):
        raise _wrong(
            table, f"{learner.use} needs the slope of the twin in what is programmed",
            f"{type(twin).__name__} without settled()", "a twin with settled(x, params)",
            "choose spsa, or give the twin a method settled",
        )  # fmt: skip
    step = params_step(learner.options)
    if by == "losses" and table.bits and step is not None and step < 1 / (2**table.bits - 1):
        raise _wrong(
            table, "the learner moves a parameter by less than half a step of its converter",
            f"size = {step:g}, bits = {table.bits}", f"{1 / (2**table.bits - 1):.3g} or more", "make size in [learner] larger",
        )  # fmt: skip
    known = _known(table, twin, experiment)
    if known is None and table.size is None:
        raise _wrong(
            table, "nobody says how many parameters this device has", "no size", "size, a whole number", "add size = …"
        )
    if None not in (known, table.size) and known != table.size:
        raise _wrong(table, "the device has another number of parameters", f"size = {table.size}", f"{known}", "remove size")
    size = known or table.size
    assert size is not None
    for key in ("low", "high", "slew", "start"):
        value = getattr(table, key)
        if isinstance(value, list) and len(value) != size:
            raise _wrong(table, f"{key} has one number for each parameter", f"{len(value)} of them", f"{size}, or one for all")
    return size


def _twin(node: DeviceTable, experiment: Experiment) -> Twin | None:
    """The twin that is the node or models it, or None."""
    choice = node.model
    if choice is None and node.kind == "bench" and experiment.bench is not None and experiment.bench.twin is not None:
        choice = experiment.bench.twin.choice
    found: Twin | None = None if choice is None else choice.build()
    return found


def _known(table: ParamsTable, twin: Twin | None, experiment: Experiment) -> int | None:
    """Number of parameters, as the bench file or the twin says; None: neither does."""
    named = getattr(getattr(experiment.bench, "node", None), "program", None)
    if experiment.bench is not None and named is not None:
        if not named:
            raise _wrong(table, "nothing is programmed on this bench", "no program in its [node]", 'program = ["…"] there')
        return len(list(numbers(named, experiment.bench)))
    return None if twin is None or twin.spec.params is None else twin.spec.params.size


def _first(table: ParamsTable, size: int, experiment: Experiment, number: int) -> nn.Parameter:
    """The first values of the parameters of a layer."""
    if table.start == "uniform":
        first = torch.rand(size, generator=generator(experiment.seed, number, "params")) * 2 - 1
    else:
        first = torch.tensor(table.start if isinstance(table.start, list) else [float(table.start)] * size)
    return nn.Parameter(first, requires_grad=table.lr != 0)


def _wrong(
    table: ParamsTable, what: str, got: str, allowed: str, todo: str = "remove [params]", outputs: str = UNTOUCHED
) -> ConfigError:  # fmt: skip
    return ConfigError(what, where=table.place, got=got, allowed=allowed, outputs=outputs, todo=todo)
