"""Devices of a display and a camera."""
