"""One HTML page about one run, whole in itself: it opens without a network, on a phone, in the dark.

render(run) reads config.toml, summary.json, metrics.jsonl, journal.jsonl and diagnostics.json, each of which may be
missing or damaged, and writes report.html beside them.
"""

from hil.report.page import render

__all__ = ["render"]
