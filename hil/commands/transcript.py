"""hil transcript: one short conversation with each instrument of a bench, word for word in a file, which becomes a test.

    FOLDER/wire/NAME.jsonl      what was said to [instruments.NAME] and answered; its first line names driver and settings

The conversation is that of drivers/fixed_session.py: outputs go on for a moment, between the middle of their limits and a
tenth of the way up, guarded as in a run. Instruments beside the node are not opened, and one that cannot say what it holds, as
a PicoScope, has no conversation.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from drivers.fixed_session import WAIT_S, session
from drivers.waveform.roles import parts
from hil.build.auxiliaries import Table
from hil.build.bench import LINK_S, Conversing, Opening, check_address, lingering
from hil.config.bench import read_bench
from hil.errors import UNTOUCHED, ConfigError
from hil.files import there
from sim_devices.bench.served import spawn

WHOLE_BYTES = 1 << 17  # a longer message is kept as length and checksum


def transcribe(path: Path, folder: Path, out: Console) -> list[Path]:
    """Talk to the instruments of a bench and write down what was said; outputs are off at the end, read back.

    Args:
        path: of the bench file.
        folder: a new one.
        out: where people are told.

    Returns:
        the transcripts; of an instrument whose package keeps the wire there is none.

    Raises:
        ConfigError: a shape whose instruments have no session; nothing was opened. HilError: from an instrument. UnsafeOutputs.
    """
    bench = read_bench(path)
    if not isinstance(bench.how, Conversing):
        raise ConfigError(
            "no conversation is known for instruments of this shape", where=str(path), got=f"shape {bench.shape}",
            allowed="waveform, vector, or a shape with conversing()", outputs=UNTOUCHED,
            todo="train once with --wire, which writes down any conversation",
        )  # fmt: skip
    names, described = bench.how.conversing(bench)
    instruments = [bench.instruments[name] for name in names]
    for one in instruments:
        check_address(one, bench.simulated, "TCPIP::…")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError("no such new folder can be made", where=str(folder), got=error.strerror or str(error),
                          allowed="a folder that is not there yet", outputs=UNTOUCHED,
                          todo="name another one with --out") from error  # fmt: skip
    with ExitStack() as stack:
        opening = Opening(bench, folder, True, stack, full_bytes=WHOLE_BYTES)
        opening.check_silence(WAIT_S + 2 * max(one.timeout_s or LINK_S for one in instruments), "the conversation")
        served = None if described is None else stack.enter_context(spawn(lingering(described, folder)))
        table = Table(opening, names, names, served)
        table.watched(())
        for name, line in table.lines.items():
            out.print(f"{name:<7} {line}", soft_wrap=True)
        drivers = [table.drivers[name] for name in names]
        asked = [driver for driver in drivers if all(hasattr(one, "panel") for one in parts(driver))]
        if asked:
            session(*asked)
    if asked:
        out.print(f"outputs {table.guard.outputs_after}", soft_wrap=True)
    files = [file for name in names if there(file := folder / "wire" / f"{name}.jsonl")]
    for file in files:
        out.print(f"said    {file}   {file.stat().st_size} bytes", soft_wrap=True)
    return files
