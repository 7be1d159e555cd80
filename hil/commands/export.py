"""hil export: runs as a table for other programs, or the weights of one for other networks.

    csv, parquet, xarray      a row an epoch and split of every run; "test" is the split that was read at the end
    safetensors               the best weights, a plain state_dict
    nir                       a spiking network, see hil/build/nir_graph.py

The table has the columns of RUN, then what metrics.jsonl has. Of xarray it is a Dataset over (run, epoch, split), as netCDF.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hil.commands.run import Run
from hil.errors import UNTOUCHED, ConfigError, RunError
from hil.files import there, write_atomic
from hil.report.contents import number
from hil.report.run_files import RunRecord, read

Format = Literal["csv", "parquet", "xarray", "safetensors", "nir"]
ENDS: Mapping[Format, str] = {"csv": "csv", "parquet": "parquet", "xarray": "nc", "safetensors": "safetensors", "nir": "nir"}
NEEDS: Mapping[Format, tuple[str, ...]] = {
    "parquet": ("pandas", "pyarrow"),
    "xarray": ("pandas", "xarray", "h5netcdf"),
    "nir": ("nir",),
}
RUN = ("run", "name", "seed", "data", "network", "device", "learner", "provenance", "status")
PLACE = ("run", "epoch", "split")
NO_SCORE = ("test_reads",)  # of summary.json: begins like a score, and is none
Row = Mapping[str, Any]


def export(runs: Sequence[Path], to: Format, out: Path | None) -> Path:
    """Write the file, and return its path.

    Args:
        runs: run folders.
        to: the format.
        out: a new file; None: named after the run, or runs, in the working directory.

    Raises:
        ConfigError: no run, several where one is meant, or a package is not installed. RunError: no run folder, the file is
            there already, or cannot be written.
    """
    where, asked = "hil export", " ".join(("hil export --to", to))
    if not runs:
        raise ConfigError("which run?", where=where, got="no folder", allowed="run folders", todo="hil export RUN --to csv")
    if to in ("safetensors", "nir") and len(runs) > 1:
        raise ConfigError("weights are of one run", where=asked, got=f"{len(runs)} folders", outputs=UNTOUCHED)
    missing = [name for name in NEEDS.get(to, ()) if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "a package is not installed", where=asked, got=f"no {', '.join(missing)}", outputs=UNTOUCHED,
            allowed="csv and safetensors always", todo=f"pip install 'hil[{to}]'",
        )  # fmt: skip
    path = out or Path(f"{runs[0].resolve().name if len(runs) == 1 else 'runs'}.{ENDS[to]}")
    if there(path):
        raise RunError(
            "nothing is overwritten", where=str(path), got="it is there already", outputs=UNTOUCHED,
            todo="name another file: --out",
        )  # fmt: skip
    if to in ("safetensors", "nir"):
        payload = (_safetensors if to == "safetensors" else _nir)(runs[0])
    else:
        rows = [row for run in runs for row in table(read(run))]
        writers: Mapping[str, Callable[[list[Row]], bytes]] = {"csv": _csv, "parquet": _parquet, "xarray": _xarray}
        payload = writers[to](rows)
    write_atomic(path, payload)
    return path


def table(record: RunRecord) -> list[Row]:
    """Return the rows of a run: those of metrics.jsonl, then one of the test split if it was read."""
    config, summary = record.config, record.summary
    network = _part(config, "network")
    device = _part(config, "device")
    about = {
        "run": record.place,
        "name": summary.get("name", "") or config.get("name", ""),
        "seed": summary.get("seed", config.get("seed", "")),
        "data": _part(config, "data").get("use", ""),
        "network": "-".join(str(width) for width in network.get("widths", ())) or network.get("use", ""),
        "device": next((str(device[key]) for key in ("bench", "use", "chip", "host") if key in device), ""),
        "learner": _part(config, "learner").get("use", ""),
        "provenance": summary.get("provenance", ""),
        "status": summary.get("status", ""),
    }
    rows: list[Row] = [{**about, **line} for line in record.metrics]
    names = [name for name in summary if name.startswith("test_") and name not in NO_SCORE]
    scores = {name.removeprefix("test_"): found for name in names if (found := number(summary, name)) is not None}
    if scores:
        rows.append({**about, "epoch": summary.get("best_epoch"), "step": summary.get("steps"), "split": "test", **scores})
    return rows


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys([*RUN, *(key for row in rows for key in row)]))


def _csv(rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: list[Row]) -> bytes:
    import pandas

    data = io.BytesIO()
    pandas.DataFrame(rows, columns=_columns(rows)).to_parquet(data, engine="pyarrow", index=False)
    return data.getvalue()


def _xarray(rows: list[Row]) -> bytes:
    import pandas

    frame = pandas.DataFrame(rows, columns=_columns(rows))
    about = frame.drop_duplicates("run").set_index("run")[list(RUN[1:])]
    numbers = frame.set_index(list(PLACE)).select_dtypes("number").drop(columns="seed", errors="ignore")
    found = numbers[~numbers.index.duplicated(keep="last")].to_xarray()
    found = found.assign_coords({name: ("run", about[name].loc[found["run"].values].to_list()) for name in RUN[1:]})
    data: Any = found.to_netcdf(engine="h5netcdf")
    return bytes(data)


def _safetensors(run: Path) -> bytes:
    import safetensors.torch

    summary = Run(run).summary
    facts = {key: str(summary[key]) for key in ("name", "provenance", "seed", "best_epoch", "test_accuracy") if key in summary}
    return safetensors.torch.save(Run(run).state_dict(), {"format": "pt", "run": str(run), **facts})


def _nir(run: Path) -> bytes:
    import nir

    from hil.build.nir_graph import graph_of

    data = io.BytesIO()
    nir.write(data, graph_of(run))
    return data.getvalue()
