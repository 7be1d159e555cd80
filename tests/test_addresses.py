"""A fault at an address names the instrument and the file; two exchanged addresses are recognised as such."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from pages import ROOT

from drivers.links.visa_link import VisaLink
from hil.build.bench import Opening
from hil.config.bench import read_bench
from hil.errors import ConfigError, OpenFailed, WrongInstrument

SCOPE = "KEYSIGHT TECHNOLOGIES DSO-X 3024T MY5 07.50"


@pytest.fixture
def opening(tmp_path: Path) -> Opening:
    """Of a bench with addresses."""
    text = (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8").partition("\n[virtual]")[0]
    for name in ("awg", "scope"):
        text = text.replace(f"[instruments.{name}]\n", f'[instruments.{name}]\nresource = "TCPIP::{name}::INSTR"\n')
    (tmp_path / "b.toml").write_text(text, encoding="utf-8")
    return Opening(read_bench(tmp_path / "b.toml"), None, False, ExitStack())


def test_an_address_where_nobody_answers(opening: Opening) -> None:
    with pytest.raises(OpenFailed) as refusal, opening.named("awg"):
        raise OpenFailed("nobody answers at this address", where="TCPIP::awg::INSTR", todo="check power")
    assert "b.toml: [instruments.awg] resource: TCPIP::awg::INSTR: nobody answers" in str(refusal.value)
    assert "Next: check power." in str(refusal.value)


@pytest.mark.parametrize(
    ("got", "todo"),
    [(SCOPE, "exchange the two addresses: this is the instrument that [instruments.scope] expects"), ("ACME 1", "correct it")],
)
def test_two_exchanged_addresses(opening: Opening, got: str, todo: str) -> None:
    with pytest.raises(WrongInstrument) as refusal, opening.named("awg"):
        raise WrongInstrument("the wrong instrument answers", where="TCPIP::awg::INSTR", got=got, todo="correct it")
    assert f"Next: {todo}." in str(refusal.value)


@pytest.mark.parametrize(
    ("resource", "todo"),
    [
        ("192.168.0.5", 'write "TCPIP::192.168.0.5::INSTR"'), ("scope.lab.org", 'write "TCPIP::scope.lab.org::INSTR"'),
        ("/dev/ttyACM9", "this is a serial port"), ("COM3", "this is a serial port"), ("nonsense", "hil list resources"),
    ],
)  # fmt: skip
def test_what_is_no_resource_string(resource: str, todo: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        VisaLink(resource)
    assert todo in str(refusal.value)
