"""`python -m hil` is the command `hil`."""

from hil.cli import main

main()
