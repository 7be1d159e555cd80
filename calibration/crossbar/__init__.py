"""Calibration of a crossbar of programmed cells, as differential pairs."""
