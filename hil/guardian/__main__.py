"""python -m hil.guardian: started by the trainer, see the package."""

from __future__ import annotations

import os
import sys

from hil.guardian.process import main

if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # all is on record; a link whose opening hangs must not keep this process
