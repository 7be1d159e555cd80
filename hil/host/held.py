"""The device in its worker: opened from a recipe, driven, made safe, closed. No other process has it.

A device is made safe by its `safe()`, which reads back and raises if it cannot. One without a `safe` is closed instead: that is
believed only of a class that says `closes_safe = True`, and it is opened again when it is next driven.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hil.config.resolve import announced, resolve
from hil.device import Port, Restorable, Spec, plain
from hil.devices.stepped import Stepped, stepped
from hil.errors import ConfigError, ContractError, HilError, OpenFailed, UnsafeOutputs
from hil.foreign import foreign, mapped
from hil.host.charge import Recipe
from hil.host.frames import Bytes
from hil.slew import slew_of

CORRECT = "correct that code, then start again"
BY_HAND = "switch the outputs off at the device, and correct its safe()"
MADE_SAFE = "safe, by the device's own word"


def guards(thing: object) -> bool:
    """True if a device, or its class, can be made safe: by `safe()`, or by a `close()` that is declared to do so."""
    given = callable(getattr(thing, "safe", None)) and getattr(thing, "has_safe", True) is not False
    return given or getattr(thing, "closes_safe", False) is True


class HeldDevice:
    """A device, open or not.

    Args:
        recipe: how it is made.
        unguarded: it is opened although it cannot be made safe.

    Raises:
        ConfigError: no such class, wrong settings, or one that cannot be made safe; nothing was opened.
    """

    def __init__(self, recipe: Recipe, unguarded: bool) -> None:
        self._recipe, self._unguarded = recipe, unguarded
        self._place = recipe.place or f"host of {recipe.use}"
        self._made: Callable[..., Any] = resolve(recipe.use, self._place)
        self._device: Any = None
        self._driven: Any = None  # the device, or what refuses steps that are too large for it
        self._opening = False
        self._check()

    def _check(self) -> None:
        if not callable(self._made):
            raise ConfigError("no class and no function", where=self._place, got=self._recipe.use, allowed="module:Class")
        what = announced(self._made)
        if not self._unguarded and not guards(what):
            raise self._unsafe(
                "it says what it returns by no annotation" if what is None else f"{getattr(what, '__name__', what)}"
            )
        try:
            inspect.signature(self._made).bind(**self._recipe.settings)
        except TypeError as error:
            raise ConfigError(
                "these settings are refused", where=self._place, got=f"{self._recipe.use}: {error}",
                outputs="untouched; nothing was opened", todo="correct the settings",
            ) from error  # fmt: skip
        except ValueError:  # a class written in C does not say what it takes
            return

    def _unsafe(self, got: str, outputs: str = "untouched; nothing was opened") -> ConfigError:
        return ConfigError(
            "nobody could make this device safe", where=self._place, got=f"{self._recipe.use}: {got}, without safe()",
            allowed="a class with safe(), or with closes_safe = True if its close() leaves verified safe outputs",
            outputs=outputs, todo="give it a safe() that reads back; a function that returns hil.from_functions(...) says "
            "-> hil.Functions. Or write unguarded = true, and every result says so",
        )  # fmt: skip

    @property
    def open(self) -> bool:
        """True if the device is open."""
        return self._device is not None

    def opened(self) -> Any:
        """The device, opened now if it is not.

        Raises:
            OpenFailed: it raised an exception that is not hil's.
        """
        if self._device is None:
            self._opening = True
            with foreign(self._place, OpenFailed, "untouched, as far as the device's own code leaves them", CORRECT):
                device = self._made(**self._recipe.settings)
            self._opening = False
            if not (self._unguarded or guards(device)):
                device.close()
                raise self._unsafe(type(device).__name__, "as its close() left them")
            if not isinstance(getattr(device, "spec", None), Spec):
                raise ContractError(
                    "this is no device", where=self._place, got=f"{type(device).__name__} without a spec",
                    allowed="an attribute spec = hil.Spec(inputs, outputs)", todo=f"give {self._recipe.use} a spec",
                )  # fmt: skip
            self._device, self._driven = device, device
            self._driven = stepped(device)
        return self._device

    def facts(self) -> dict[str, Any]:
        """Describe the device, as JSON values."""
        device = self.opened()
        spec: Spec = device.spec
        return {
            "device": f"{type(device).__module__}:{type(device).__qualname__}",
            "inputs": port_table(spec.inputs),
            "outputs": port_table(spec.outputs),
            "params": None if spec.params is None else port_table(spec.params),
            "temporal": spec.temporal,
            "provenance": spec.provenance,
            "neurons": None if spec.neurons is None else spec.neurons.table(),
            "safe": guards(device),
            "restorable": isinstance(device, Restorable),
            "beats": callable(getattr(device, "beat", None)),
            "slew_by": slew_of(self._driven).by if spec.inputs.slews else "",
            "row_s": slew_of(self._driven).row_s,
        }

    def forward(self, shape: list[int], data: Bytes) -> tuple[list[int], memoryview]:
        """Drive the device with an array, and return shape and bytes of its answer."""
        x = array(shape, data)
        answer = self._act("forward()", lambda device: self._driven.forward(x))
        if not isinstance(answer, Tensor):
            raise ContractError(
                "the answer of forward() is no tensor", where=self._place, got=type(answer).__name__,
                allowed="a float32 tensor", todo=f"let forward() of {self._recipe.use} return one: torch.as_tensor(answer)",
            )  # fmt: skip
        found = plain(answer, self._place, torch.device("cpu")).to(torch.float32).contiguous()
        return list(found.shape), found.numpy().data.cast("B") if found.numel() else memoryview(b"")

    def program(self, shape: list[int], data: Bytes) -> None:
        """Program the device."""
        params = array(shape, data)
        self._act("program()", lambda device: device.program(params))

    def reset(self) -> None:
        """Reset the device."""
        self._act("reset()", lambda device: device.reset())

    def beat(self) -> None:
        """Tell a device that has a guardian of its own that the trainer makes progress."""
        if self._device is not None:
            self._act("beat()", lambda device: device.beat())

    def snapshot(self) -> Mapping[str, object]:
        """Return the state of a Restorable device."""
        state: Mapping[str, object] = self._act("snapshot()", lambda device: device.snapshot())
        return state

    def restore(self, state: Mapping[str, object]) -> None:
        """Return a Restorable device to a state."""
        self._act("restore()", lambda device: device.restore(state))

    def _act(self, what: str, act: Callable[[Any], Any]) -> Any:
        """Use the device; an exception that is not hil's means that it is made safe at once, and told by its lines.

        Raises:
            ForeignError: the outputs are safe. UnsafeOutputs: they could not be made safe.
        """
        device = self.opened()
        where = f"{self._place}, {what}"
        try:
            return act(device)
        except (HilError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            fault = mapped(error, where, todo=CORRECT)
            verified = self.safe()  # an UnsafeOutputs is chained to `error`
            fault.outputs = MADE_SAFE if verified else "closed; not known to be safe"
            raise fault from error

    def safe(self, anew: bool = False) -> bool:
        """Make the outputs safe; True: they are, by the device's own word.

        Args:
            anew: close the device, and open it again, before.

        Raises:
            UnsafeOutputs: safe() or close() raised.
        """
        if anew:
            self.close()
            self.opened()
        if self._device is None:
            return not self._opening  # while it is being opened, by another thread, nobody knows
        verified = guards(self._device)
        if callable(getattr(self._device, "safe", None)):
            self._unless("safe()", self._device.safe)
            if isinstance(self._driven, Stepped):
                self._driven.at_rest()
        else:
            self.close()
        return verified

    def close(self) -> None:
        """Close the device.

        Raises:
            UnsafeOutputs: its close() raised.
        """
        device, self._device = self._device, None
        if device is not None:
            self._unless("close()", device.close)

    def _unless(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except UnsafeOutputs:
            raise
        except HilError as error:
            raise UnsafeOutputs(
                f"{what} failed: {error.what}", where=self._place, got=error.got, outputs="not known to be safe",
                todo=BY_HAND, at=error.at,
            ) from error  # fmt: skip
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise mapped(error, f"{self._place}, {what}", UnsafeOutputs, "not known to be safe", BY_HAND) from error


def array(shape: list[int], data: Bytes) -> Tensor:
    """The bytes as a float32 tensor that owns its memory."""
    return torch.from_numpy(np.frombuffer(data, "<f4").reshape(shape))


def port_table(port: Port) -> dict[str, Any]:
    """The fields of a port as JSON values; a limit as a list: empty, of one number for all channels, or of one for each."""
    return {
        f.name: value if f.name in ("name", "unit", "size") else numbers(value)
        for f in fields(port)
        for value in [getattr(port, f.name)]
    }


def numbers(limit: Any) -> list[float]:
    """A limit as a list."""
    if limit is None:
        return []
    return [float(one) for one in limit] if isinstance(limit, tuple | list) else [float(limit)]
