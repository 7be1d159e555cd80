"""The Lightning module of docs/how-to/use_in_torch.md learns digits through a device. Needs lightning."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from extras import needs
from pages import DOCS, written

lightning = needs("lightning")


def test_a_lightning_module_learns_digits_through_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written([DOCS / "how-to" / "use_in_torch.md"], tmp_path)
    made = runpy.run_path(str(tmp_path / "lit_digits.py"))
    assert made["accuracy"] >= 0.93
    made["trainer"].save_checkpoint(tmp_path / "lit.ckpt", weights_only=True)
    again = made["LitDigits"]()
    again.load_state_dict(torch.load(tmp_path / "lit.ckpt", weights_only=True)["state_dict"])
    data = made["data"]
    with torch.no_grad():
        assert float((again.net(data.test.x).argmax(1) == data.test.y).float().mean()) >= 0.93
