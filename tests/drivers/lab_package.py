"""A package as labs have them: instruments of its own, in files, so that what one process sets another one finds.

Every switch and every level is a line of the log, in the words of a virtual bench's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from drivers.adapter import PackageAdapter
from drivers.package_talk import anew
from drivers.packages import Holding, made
from drivers.safe import SafeState, Talk
from drivers.scpi import Identity


class Laser:
    """Power, a bias and a switch, kept in a file; `stuck` in it: the switch does not move; `hang`: opening it takes so long."""

    model = "LabLaser"

    def __init__(self, file: str, log: str = "") -> None:
        self._file, self._log, self.left = Path(file), Path(log or file + ".log"), False
        time.sleep(self._held().get("hang", 0.0))

    def _held(self) -> dict[str, Any]:
        return (
            json.loads(self._file.read_text(encoding="utf-8"))
            if self._file.exists()
            else {"power": 0.0, "bias": 0.0, "on": "off"}
        )

    def set(self, name: str, value: Any) -> None:
        held = self._held()
        if name not in ("power", "bias", "on", "stuck", "hang", "serial"):
            raise KeyError(name)
        before = held.get(name)
        if name != "on" or not held.get("stuck"):
            held[name] = value
        self._file.write_text(json.dumps(held), encoding="utf-8")
        if name == "on" and before != held["on"]:
            self._write({"box": self.model, "on": held["on"] == "on"})
        elif name != "on":
            self._write({"level": name, "value": value})

    def get(self, name: str) -> Any:
        return self._held()[name]

    def _write(self, line: dict[str, Any]) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


class Lab:
    """See drivers.packages.Holding."""

    def begin(self, name: str, table: Mapping[str, Any]) -> tuple[Any, bool]:
        return made(table), True

    def put(self, instrument: Any, parameter: str, value: Any) -> None:
        instrument.set(parameter, value)

    def get(self, instrument: Any, parameter: str) -> Any:
        if instrument.left:
            raise ConnectionError("it was given back")
        return instrument.get(parameter)

    def close(self, instrument: Any) -> None:
        self.release(instrument)

    def who(self, instrument: Any) -> Identity:
        return Identity("Lab", instrument.model, str(instrument._held().get("serial", "7")), "1.0")

    def release(self, instrument: Any) -> None:
        instrument.left = True


@contextmanager
def talk(state: SafeState) -> Iterator[Talk]:
    with anew(Lab(), state) as found:
        yield found


class Adapter(PackageAdapter):
    package: ClassVar[Holding] = Lab()
    talk: ClassVar[str] = "lab_package:talk"
    takes: ClassVar[str] = "file"
