"""Hostile surroundings: damaged run folders, hands at the front panel, stopped terminals and guardians, generated quantities.

python benchmarks/hostile.py [--quick] [--only PART]     parts: quantities outputs panel folders; the last line is JSON

folders_tried                 hostile run folders, times the commands that looked at them
tracebacks, hangs             commands that ended so
imports_by_looking            modules of the folder that a looking command imported
sent_by_folder                messages that a resource named only by a run folder received
panel_changes, panel_noticed  settings changed by another hand while a run went on; those that became faults
panel_worst_s, _shots         longest from the change to its notice
*_off_s_worst                 longest from the trainer's end to outputs off, by the log of the simulated generator
quantities_tried, _wrong      generated texts; those taken for another value, or that took too long
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from typing import Any

PARTS = ("quantities", "outputs", "panel", "folders")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sample of each part, under a minute in all")
    parser.add_argument("--only", choices=PARTS, default=None)
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for part in PARTS if asked.only is None else (asked.only,):
        begin = time.monotonic()
        found |= importlib.import_module(f"hostility.{part}").measure(asked.quick)
        print(f"{part}: {time.monotonic() - begin:.1f} s", file=sys.stderr)
    print(json.dumps(found))
    sys.exit(any(found.get(key) for key in ("tracebacks", "hangs", "imports_by_looking", "sent_by_folder", "quantities_wrong")))


if __name__ == "__main__":
    main()
