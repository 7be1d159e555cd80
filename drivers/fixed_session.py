"""One short conversation with any instrument, always the same: what a driver says, and what is answered, become a transcript.

    prepare, read back          sources and generators        outputs off; meters are read besides
    record sent, outputs on     from the middle of the limits to a tenth of the way up
    configure, arm, trigger     digitizers; the trigger is the generator's, if there is one, or comes by itself
    wait, read                  once more with another time axis
    outputs off, read back

Each instrument hears the same whether it is alone or on a bench, so the transcript of one (drivers/links/transcript.py) can be
played to its driver alone (drivers/links/scripted.py): `hil transcript` records, tests/drivers/test_golden.py plays.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from drivers.links.link import Link
from drivers.scpi import Scpi
from drivers.scpi_meter import ScpiMeter
from drivers.scpi_source import resting
from drivers.spiking.session import FrameLink
from drivers.waveform.roles import parts
from hil.port import each

RATE_HZ = 1.25e6  # samples/s, which a whole multiple of gives on every clock and time base here
SHAPES = ((64, 0.0), (128, 8e-6))  # samples, first one after the trigger in s
SAMPLES, SHARE = 32, 0.1  # of a record; of the way from the middle of the limits to the upper one
WAIT_S = 5.0


def opened(made: Callable[..., Any], link: Link | FrameLink, settings: Mapping[str, Any]) -> Any:
    """The driver over a link, as a bench opens it: an instrument of text is asked who it is before it gets a driver."""
    if "link" in inspect.signature(made).parameters:  # a board of frames asks by itself
        return made(link=link, **settings)
    speaks: Callable[[Any], Scpi] = getattr(made, "speaks", Scpi)
    scpi = speaks(link)
    scpi.identify()
    return made(scpi=scpi, **settings)


def session(*drivers: Any) -> list[Any]:
    """Talk to the drivers of a bench, or to one; outputs are off at the end. Return what was read, as plain values.

    Args:
        drivers: each a generator, a digitizer, both in one, a source of levels, or a meter. They stay open.

    Raises:
        LinkError, InstrumentError, MeasurementError: from an instrument; its driver must be closed.
    """
    every = [part for driver in drivers for part in parts(driver)]
    digitizers = [one for one in every if hasattr(one, "arm")]
    generators = [one for one in every if hasattr(one, "upload")]
    sources = [one for one in every if hasattr(one, "levels")]
    found: list[Any] = []
    for one in sources:
        found += _source(one)
    for one in (one for one in every if isinstance(one, ScpiMeter)):
        one.prepare()
        one.panel.held()
        found.append(list(one.read()))
    for one in generators:
        _drive(one)
    for samples, start_s in SHAPES:
        for one in digitizers:
            one.configure(samples, RATE_HZ, start_s)
            one.panel.held()
            one.arm()
        for one in generators[:1]:
            one.trigger()
        for one in digitizers:
            one.wait(WAIT_S)
            found += [_plain(one.read(k) if k else one.read()) for k in range(len(one.channels))]
    for one in generators:
        one.output(False)
        one.panel.held()
        one.check("the fixed session")
    return found


def _drive(generator: Any) -> None:
    """Send a record to each channel, outputs on."""
    generator.prepare(RATE_HZ)
    generator.panel.held()
    for k, (low, high) in enumerate(_limits(generator.drive)):
        middle = 0.5 * (low + high)
        volts = np.linspace(middle, middle + SHARE * (high - middle), generator.memory.padded(SAMPLES), dtype=np.float32)
        codes = generator.encode(volts, k) if k else generator.encode(volts)
        generator.upload(codes, k) if k else generator.upload(codes)
    generator.output(True)


def _source(source: Any) -> list[Any]:
    """Set levels, measure where the box can, outputs off again."""
    source.prepare()
    rest = resting(source.drive)
    up = [low + SHARE * (high - low) for low, (_, high) in zip(rest, _limits(source.drive), strict=True)]
    source.output(True)
    source.levels(rest)
    source.levels(up)
    found = [list(source.read())] if hasattr(source, "read") else []
    source.levels(rest)
    source.output(False)
    source.panel.held()
    return found


def _limits(port: Any) -> Iterator[tuple[float, float]]:
    yield from zip(each(port.low, port.size or 1), each(port.high, port.size or 1), strict=True)


def _plain(record: Any) -> list[Any]:
    return [len(record.words), int(record.words.astype(np.int64).sum()), record.axis.start_s, record.axis.step_s]
