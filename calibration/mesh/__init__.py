"""Calibration of a mesh of Mach-Zehnder interferometers with heaters."""
