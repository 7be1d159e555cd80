"""python -m hil.guardian: started by the trainer, see the package."""

from __future__ import annotations

import os

from hil.child import KEPT as KEPT
from hil.child import deaf

if __name__ == "__main__":
    deaf()  # before the slow imports
    from hil.guardian.process import main

    os._exit(main())  # all is on record; a thread that hangs in a link, a disk or a terminal must not keep this process
