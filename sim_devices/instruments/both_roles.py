"""Common parts of a simulated box that drives and reads: a generator and a scope in one housing, with one conversation."""

from __future__ import annotations

from collections.abc import Mapping

from hil.errors import ContractError
from sim_devices.instruments.generator_box import GeneratorBox
from sim_devices.instruments.hand import FrontPanel, PanelBox
from sim_devices.instruments.scope_box import ScopeBox
from sim_devices.instruments.scpi import Scpi


class BothRoles(PanelBox):
    """A box of two parts. A dialect's class makes both on its lock, then its Scpi, and calls `_join`.

    parts: the outputs and the inputs, as a bench wires them.
    """

    _out: GeneratorBox
    _in: ScopeBox

    def _join(self, scpi: Scpi) -> None:
        """Let both parts speak by one conversation, and have one front panel."""
        self.parts = (self._out, self._in)
        self._scpi = self._out._scpi = self._in._scpi = scpi
        self._front = self._out._front = self._in._front = FrontPanel(scpi, self.name)

    @property
    def name(self) -> str:
        """Model and serial number."""
        return self._out.name

    def on(self, channel: int) -> bool:
        """The output relay."""
        return self._out.on(channel)

    def reboot(self) -> None:
        """Lose power for a moment: outputs off, settings and records as at power-on."""
        self._out.reboot()
        self._in.reboot()

    def outputs(self) -> dict[str, object]:
        """Return by channel whether it is on, and its lowest and highest level in V."""
        return self._out.outputs()

    def snapshot(self) -> dict[str, object]:
        """Return settings, records and status as JSON values."""
        return {"outputs": self._out.snapshot(), "inputs": self._in.snapshot()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot. Raises: ContractError: it is none of such a box."""
        outputs, inputs = state.get("outputs"), state.get("inputs")
        if not (isinstance(outputs, Mapping) and isinstance(inputs, Mapping)):
            raise ContractError(f"not a snapshot of a {type(self).__name__}", where=self.name, got=str(state)[:80])
        self._out.restore(outputs)
        self._in.restore(inputs)
