"""`python -m hil` is the command `hil`: it finds the same modules, and none of the folder that it is started in."""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:  # before anything else is imported: a json.py there is not Python's
        begin, home = sys.path.pop(0), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        if os.path.realpath(begin) == os.path.realpath(home) and home not in sys.path:
            sys.path.append(home)  # a checkout that is not installed

    from hil.cli import main

    main()
