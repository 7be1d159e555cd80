"""What a calibration finds of benches that nobody knows; see blind_calibration.py.

    python benchmarks/calibration.py [--parts hidden,deceived,drift,deploy] [--benches N] [--first N] [--record]

This file is called as the package that it measures, and the folder of a script is where Python looks first. So the folder goes
last here, and where a script beside this one means the package, this file gives way to it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
elsewhere = [place for place in sys.path if Path(place).resolve() not in (HERE, HERE.parent)]
sys.path[:] = [str(HERE.parent), *elsewhere, str(HERE)]

if __name__ == "__main__":
    importlib.import_module("blind_calibration").main()
else:
    del sys.modules[__name__]
    importlib.import_module(__name__)
