"""Calibration of a node with memory behind a generator and a digitizer: a delay loop."""
