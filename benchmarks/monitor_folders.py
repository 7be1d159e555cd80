"""Run folders with the files that the pages read, written without any training."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tomli_w

BEGUN = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
STEPS = 20  # an epoch


def made(
    path: Path, name: str = "", learner: str = "adfa", seed: int = 0, epochs: int = 5, rate: float = 0.6, status: str = "done",
    tags: tuple[str, ...] = (), note: str = "", device: str = "benches/mzm_awg_scope.toml", days: int = 0, lr: float = 2e-3,
) -> Path:  # fmt: skip
    """A run folder in which an accuracy rises by 1 - exp(-rate epoch)."""
    (path / "checkpoints").mkdir(parents=True)
    config = {
        "seed": seed, "name": name, "data": {"use": "digits"}, "device": {"bench": device}, "learner": {"use": learner},
        "optimizer": {"use": "Adam", "lr": lr}, "train": {"epochs": epochs, "batch": 32},
    }  # fmt: skip
    (path / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    begun = BEGUN + timedelta(days=days)
    lines: list[dict[str, object]] = [
        {"t": _at(begun, 0), "kind": "start", "provenance": "twin", "node": {}, "resources": {}, "epochs": epochs,
         "batches_per_epoch": STEPS}
    ]  # fmt: skip
    metrics = []
    for epoch in range(1, epochs + 1):
        for batch in range(1, STEPS + 1):
            step = (epoch - 1) * STEPS + batch
            loss = 2.3 * math.exp(-rate * step / STEPS) * (1 + 0.15 * math.sin(7.0 * step)) + 0.02
            at = _at(begun, 0.8 * step)
            lines.append({"t": at, "kind": "commit", "step": step, "epoch": epoch, "batch": batch, "loss": loss,
                          "passes": 6000 * step, "device_s": round(0.6 * step + 0.05 * math.sin(step), 3)})  # fmt: skip
            if step % 33 == 0:
                lines.append({"t": at, "kind": "fault", "step": step, "message": "LinkTimeout: no answer within 5 s"})
                lines.append({"t": at, "kind": "recovered", "step": step, "faults": 1, "in_all": step // 33})
        right = 1 - 0.9 * math.exp(-rate * epoch)
        metrics.append({"epoch": epoch, "step": epoch * STEPS, "split": "train", "loss": loss, "accuracy": right,
                        "wall_s": 16.0, "device_s": 12.0, "device_passes": 6000 * STEPS * epoch})  # fmt: skip
        metrics.append({"epoch": epoch, "step": epoch * STEPS, "split": "validation", "loss": loss + 0.05,
                        "accuracy": right - 0.02})  # fmt: skip
        lines.append({"t": at, "kind": "epoch", "epoch": epoch, "step": epoch * STEPS, "accuracy": right - 0.02})
    end = {"done": "end", "interrupted": "interrupt"}.get(status, status)
    lines.append(
        {"t": _at(begun, 0.8 * epochs * STEPS + 1), "kind": end, "step": epochs * STEPS, "message": f"this is the {end}"}
    )
    summary = {
        "status": status, "name": name or path.name, "provenance": "twin", "metric": "accuracy", "better": "higher",
        "validation_accuracy": right - 0.02, "best_epoch": epochs, "seed": seed,
        "wall_s": 16.0 * epochs,
        "outputs": "off, read back",
        "device_s": 12.0 * epochs, "device_passes": 6000 * STEPS * epochs, "faults_recovered": epochs * STEPS // 33,
        **({"test_accuracy": right - 0.03} if status == "done" else {}),
    }  # fmt: skip
    drive = [0.1 * k - 4 for k in range(81)]
    diagnostics = {
        "transfer": {"drive": drive, "measured": [0.18 + 0.17 * math.cos(0.9 * v) for v in drive], "drive_unit": "V",
                     "reading_unit": "V", "twin": [0.18 + 0.172 * math.cos(0.9 * v) for v in drive]},
        "pre": [{"edges": [-2, -1, 0, 1, 2], "counts": [5, 40, 38, 6]}],
    }  # fmt: skip
    for file, rows in (("journal.jsonl", lines), ("metrics.jsonl", metrics)):
        (path / file).write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows), encoding="utf-8")
    for file, table in (("summary.json", summary), ("diagnostics.json", diagnostics)):
        (path / file).write_text(json.dumps(table), encoding="utf-8")
    if tags or note:
        (path / "notes.toml").write_text(tomli_w.dumps({"tags": list(tags), "note": note}), encoding="utf-8")
    return path


def _at(begun: datetime, seconds: float) -> str:
    return (begun + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
