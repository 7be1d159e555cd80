"""A function of the user's that returns a device, named in a file: it must say so, and what is refused is closed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import hil
from hil.config.resolve import DEVICE_PARTS, node_choice
from hil.errors import ConfigError
from hil.host.charge import Recipe
from hil.host.held import HeldDevice

RIGS = """
import hil

made_safe = []

def silent():
    port = hil.Port("p", -1, 1, "V", 2)
    return hil.from_functions(lambda x: None, lambda: [0, 0], port, port, safe=lambda: made_safe.append(1))

def vague() -> hil.Device:
    return silent()

def rig() -> hil.Functions:
    return silent()
"""


@pytest.fixture(autouse=True)
def _rigs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rigs_of_functions.py").write_text(RIGS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


def test_one_that_says_so_is_a_device() -> None:
    found = node_choice("rigs_of_functions:rig", {}, "e.toml: [device]")
    assert found.parts == DEVICE_PARTS
    assert isinstance(found.build(), hil.Functions)


def test_one_that_says_nothing_is_closed_again() -> None:
    made_safe = importlib.import_module("rigs_of_functions").made_safe
    before = len(made_safe)
    with pytest.raises(ConfigError, match="returns a device, and its first line does not say so") as caught:
        node_choice("rigs_of_functions:silent", {}, "e.toml: [device]").build()
    assert "def rig() -> hil.Functions" in caught.value.todo
    assert len(made_safe) == before + 1


def test_one_that_does_not_say_that_it_can_be_made_safe() -> None:
    with pytest.raises(ConfigError, match="nobody could make this device safe") as caught:
        HeldDevice(Recipe("rigs_of_functions:vague"), unguarded=False)
    assert "-> hil.Functions" in caught.value.todo
