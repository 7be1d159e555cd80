"""Calibration of a node that K levels drive and L values are read from."""
