"""Calibration: steps that measure a bench and judge it, a fit of its twin, and the certificate that keeps both."""

PART_OF_HIL = True  # hil/own_packages.py
