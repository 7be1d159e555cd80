"""One run, from a folder that holds a config.toml to its summary: build, restore, train, diagnose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from hil.config import dump, read_experiment
from hil.errors import Interrupted, Refused, RunError, Stopped
from hil.experiment import built
from hil.run import checkpoint, diagnostics, session
from hil.run.folder import RunFolder
from hil.run.live import Live
from hil.run.session import Labels
from hil.run.stopping import Stopping


def launch(folder: RunFolder, origin: Path, start: Path | None, console: Console) -> dict[str, Any]:
    """Train what the folder's config.toml says, and return the summary.

    Args:
        origin: the file that names of other files are relative to. start: a checkpoint to go on from, or None.
    Raises:
        Refused: nothing was trained. Stopped, Interrupted: the run is committed and resumable.
    """
    saved = checkpoint.load(start) if start else None  # read before anything is opened
    labels: Labels | None = None
    experiment = read_experiment(folder.config)
    bench = folder.path / "bench.toml" if start and experiment.device.bench is not None else None  # the copy of a resumed run
    try:
        with Stopping() as stopping, built(experiment, origin, bench, folder.path) as made:
            training, labels = made.training, made.labels
            if saved is not None:
                training.restore(saved)
                folder.forget_metrics_after(training.step)
                checkpoint.forget_after(folder.checkpoints, training.step)
                folder.note("resume", step=training.step, checkpoint=str(start))
            else:
                folder.write_config(dump(made.experiment))
                folder.note("start", provenance=made.labels.provenance, node=made.labels.node)
                if made.transfer is not None:
                    folder.write_json("diagnostics.json", {"transfer": made.transfer_table()})
            for line in made.introduction():
                console.print(line, markup=False, soft_wrap=True)
            with Live(training, console) as live:
                summary = session.run(training, folder, stopping, made.labels, experiment.train.checkpoint_every, live)
            diagnostics.write(folder, training, made.model, summary["wall_s"])
    except (Stopped, Interrupted) as error:
        error.outputs = labels.outputs_after if labels else ""  # true now: had closing failed, UnsafeOutputs would be here
        raise
    except Refused as error:
        if not isinstance(error, RunError) and ".toml" not in error.where:
            error.where = f"{origin}: {error.where}"
        error.outputs = error.outputs or "safe; whatever was opened is closed again"
        error.todo = error.todo or f"correct {error.where.split(': ')[0]}"
        raise
    return summary
