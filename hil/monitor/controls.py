"""The outputs of a run, large, and the buttons that ask it to pause, to go on, to stop, and to switch its outputs off now."""

from __future__ import annotations

import asyncio
import time

from nicegui import ui

from hil.errors import HilError
from hil.monitor import words
from hil.monitor.parts import Text, box, button
from hil.plain import plain
from hil.run import control
from hil.run.index import Entry

ASKED = {
    "pause": "asked to pause after this step",
    "resume": "asked to go on",
    "stop": "asked to stop after this step",
    "off": "asked to switch the outputs off now",
}


class Controls:
    """The outputs and the buttons.

    Args:
        entry: the run.
        may: the visitor may change it; without that there are no buttons.
    """

    def __init__(self, entry: Entry, may: bool) -> None:
        self._entry, self._may = entry, may
        self._buttons: dict[str, Text] = {}
        with box("section", "outputs-now", aria_label="Outputs") as self._box:
            Text("span", "Outputs", "name")
            self._lamp = Text("span", "", "lamp", role="status")
            self._said = Text("span", "", "note small")
            if may:
                self._buttons["off"] = button("Outputs off now", self._off, "emergency")
                with box("div", "acts") as self._acts:
                    self._buttons["pause"] = button("Pause", self._pause)
                    self._buttons["resume"] = button("Go on", self._resume)
                    self._buttons["stop"] = button("Stop …", self._ask)
                self._dialog = self._question()
            self._answer = Text("span", "", "note small answer", role="status")
        self.show(entry)

    def show(self, entry: Entry) -> None:
        """Show the outputs and the buttons as the run is now."""
        self._entry = entry
        word = words.outputs(entry)
        self._box.look(f"outputs-now {word}")
        self._lamp.say(word)
        self._lamp.look(f"lamp {word}")
        self._said.say("" if entry.outputs == word else words.short(entry.outputs, 120))
        if self._may:
            alive = entry.state in ("at work", "paused")
            self._buttons["off"].set_visibility(alive)
            self._acts.set_visibility(alive)
            self._buttons["pause"].props.set_bool("disabled", entry.state != "at work")
            self._buttons["resume"].props.set_bool("disabled", entry.state != "paused")

    def _question(self) -> Text:
        with box("dialog", "", aria_label="Stop this run?") as dialog:
            Text("h3", "Stop this run?")
            Text(
                "p",
                "It ends after its step, commits, and makes its outputs safe. hil resume goes on with it later.",
                "note",
            )
            with box("div", "acts"):
                button("Stop the run", self._stop, "danger")
                Text("button", "Let it run", "button", type="button").on("click", self._close)
        return dialog

    async def _ask(self) -> None:
        ui.run_javascript(f"getHtmlElement({self._dialog.id}).showModal()")

    async def _close(self) -> None:
        ui.run_javascript(f"getHtmlElement({self._dialog.id}).close()")

    async def _pause(self) -> None:
        await self._send("pause")

    async def _resume(self) -> None:
        await self._send("resume")

    async def _stop(self) -> None:
        await self._close()
        await self._send("stop")

    async def _off(self) -> None:
        await self._send("off")

    async def _send(self, what: control.What) -> None:
        if not self._may:
            return
        self._answer.say(f"{time.strftime('%H:%M:%S')}: {ASKED[what]}.")
        try:
            known = await asyncio.to_thread(control.ask, self._entry.path, what)
            if known:
                self._answer.say(f"{time.strftime('%H:%M:%S')}: the run has ended; outputs {known}.")
        except HilError as error:
            self._answer.say(plain(str(error)))
