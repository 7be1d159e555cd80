"""Data sets that are made here, each from a formula, the same on every machine; one set a file."""
