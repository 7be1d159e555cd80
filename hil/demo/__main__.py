"""`python -m hil.demo`: `hil train` with the experiment of the demo, and what follows on the command line."""

from __future__ import annotations

from hil.own_packages import leave_working_directory

if __name__ == "__main__":
    leave_working_directory()  # before anything else is imported

import sys

from hil.__main__ import main
from hil.demo import experiment

if __name__ == "__main__":
    sys.argv[1:1] = ["train", str(experiment())]
    main()
