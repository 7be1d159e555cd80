"""Drivers of real instruments: one instrument a file; links carry the bytes, and each shape of bench has a folder."""

PART_OF_HIL = True  # hil/own_packages.py
