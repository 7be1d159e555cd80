"""The language that a Keithley with a touch screen is set to: SCPI, or one in which it does not know our words.

Source: Model 2450 Interactive SourceMeter Instrument Reference Manual, 2450-901-01 Rev. B, "Determining the command set you
will use" (*LANG?, *LANG SCPI, then power); the same in the DMM6500 Reference Manual, DMM6500-901-01.
"""

from __future__ import annotations

from drivers.scpi import Scpi
from hil.errors import WrongInstrument


def check_scpi(scpi: Scpi, called: str) -> None:
    """Ask for the language.

    Args:
        scpi: an identified conversation.
        called: how messages name the instrument.

    Raises:
        WrongInstrument: another one than SCPI; nothing was set.
    """
    language = scpi.ask("*LANG?").strip('"').upper()
    if language != "SCPI":
        raise WrongInstrument(
            "the instrument is set to another language", where=f"{called} at {scpi.link.name}", got=language, allowed="SCPI",
            outputs="unchanged; nothing was set", todo="send *LANG SCPI to it, then switch it off and on",
        )  # fmt: skip
