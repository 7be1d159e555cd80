"""A run as an object: what its folder holds, read anew each time it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil.errors import RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from hil.metric import Metric
    from hil.network import Network
    from hil.report.run_files import RunRecord


class Run:
    """The folder of a run, finished or not; one that `hil train` made is read alike.

    Args:
        folder: of the run.
        net: the network that was trained, with its best weights; hil.train gives it.

    Raises:
        RunError: it is no run folder; by the attributes and methods.

    Example:
        run = hil.Run("runs/first")
        print(run, run.records[-1]["accuracy"])
        run.plot().savefig("first.pdf")
    """

    def __init__(self, folder: str | Path, net: Network | None = None) -> None:
        self.folder, self._net = Path(folder), net

    @property
    def net(self) -> Network:
        """The network, with the weights of the best epoch.

        Raises:
            RunError: the run was read from its folder alone, which holds no device; its weights are in `state_dict`.
        """
        if self._net is None:
            raise RunError(
                "a run folder has no device, so no network", where=str(self.folder), allowed="a run that hil.train returned",
                todo="make the network by hil.dense, then net.load_state_dict(run.state_dict())",
            )  # fmt: skip
        return self._net

    def state_dict(self) -> dict[str, Tensor]:
        """The weights of the best epoch so far, on the CPU: "layers.0.synapse.weight", ... as `net.load_state_dict` takes them.

        Raises:
            RunError: no epoch was finished yet, or the file is damaged.
        """
        from hil.run import checkpoint

        best = self.folder / "checkpoints" / "best.json"
        if best.exists():
            return dict(checkpoint.load(best).tensors)
        newest = checkpoint.latest(self.folder / "checkpoints")
        found = checkpoint.under("best", checkpoint.load(newest).tensors)
        if not found:
            raise RunError("no epoch was finished yet", where=str(self.folder), todo="wait for the first validation")
        return dict(found)

    @property
    def summary(self) -> Mapping[str, Any]:
        """The end of the run, as summary.json has it; empty if it did not end yet.

        It has status, test_accuracy (0 to 1) or test_nrmse, provenance, seed, wall_s, device_s (s), device_passes and more.
        """
        return dict(self._record.summary)

    @property
    def records(self) -> list[dict[str, Any]]:
        """A mapping for every finished epoch and split: epoch, step, split ("train", "validation"), loss, accuracy or nrmse."""
        return [dict(line) for line in self._record.metrics]

    @property
    def metrics(self) -> Any:
        """The records as a pandas DataFrame, a row each, where pandas is installed; else the list itself.

        A program that must run in both cases uses `records`.
        """
        if find_spec("pandas") is None:
            return self.records
        import pandas

        return pandas.DataFrame(self.records)

    @property
    def test_accuracy(self) -> float | None:
        """Share of the test examples that are classified right, 0 to 1; None before the end, or of numbers."""
        return _number(self._record, "test_accuracy")

    @property
    def report(self) -> Path:
        """Path of the page with all of it."""
        return self.folder / "report.html"

    @property
    def metric(self) -> Metric:
        """The metric that chose the epoch: its name, its title, and which way is better."""
        from hil.report.contents import metric_of

        return metric_of(self._record)

    @property
    def test_score(self) -> float | None:
        """The test split by `metric`; None before the end."""
        return _number(self._record, f"test_{self.metric.name}")

    def plot(self) -> Figure:
        """Loss and metric over the epochs, training and validation, and the test score.

        Returns:
            a matplotlib Figure, to be shown or saved.
        """
        from matplotlib.figure import Figure

        from hil.report.contents import curve

        record, metric = self._record, self.metric
        percent = (100.0, " (%)") if metric.share else (1.0, "")
        figure = Figure(figsize=(8.0, 3.2), layout="constrained")
        losses, shares = figure.subplots(1, 2)
        for split, colour in (("train", "C0"), ("validation", "C1")):
            for axes, key, factor in ((losses, "loss", 1.0), (shares, metric.name, percent[0])):
                line = curve(record.metrics, split, key)
                if not line.epochs:  # NRMSE is known of the validation split alone
                    continue
                axes.plot(line.epochs, [factor * value for value in line.values], "o-", ms=3, color=colour, label=split)
        found = self.test_score
        if found is not None:
            shares.axhline(percent[0] * found, color="black", lw=1, ls="--", label=f"test {metric.shown(found)}")
        for axes, label in ((losses, "loss"), (shares, f"{metric.title}{percent[1]}")):
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.legend(frameon=False)
        figure.suptitle(f"{self.folder.name}   {record.summary.get('provenance', '')}".strip())
        return figure

    @property
    def _record(self) -> RunRecord:
        from hil.report.run_files import read  # drawing a page is slow to import

        return read(self.folder)

    def __repr__(self) -> str:
        record = self._record
        summary, found = record.summary, self.test_score
        epochs = {line.get("epoch") for line in record.metrics}
        facts = [
            str(summary.get("status") or "not finished"),
            "" if found is None else f"test {self.metric.said(found)}",
            f"{len(epochs)} epoch{'s' * (len(epochs) != 1)}",
            str(summary.get("provenance", "")),
        ]
        return f"Run({str(self.folder)!r}: {', '.join(fact for fact in facts if fact)})"


def _number(record: RunRecord, key: str) -> float | None:
    from hil.report.contents import number

    return number(record.summary, key)
