"""Files that people write (experiment, bench, search, comparison), read once into checked values."""
