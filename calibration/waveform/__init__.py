"""Calibration of a node that a generator drives and a digitizer reads."""
