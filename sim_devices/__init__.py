"""Software twins: one physics a file, and virtual benches of simulated instruments around it."""

PART_OF_HIL = True  # hil/own_packages.py
