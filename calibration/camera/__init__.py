"""Calibration of a camera behind a phase modulator and a scattering medium."""
