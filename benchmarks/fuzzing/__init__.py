"""Targets of benchmarks/fuzz.py, and of tests/fuzz."""

from fuzzing import bench, boxes, dialects, files, wires
from fuzzing.target import Target as Target

TARGETS = (*wires.TARGETS, *boxes.TARGETS, *dialects.TARGETS, *bench.TARGETS, *files.TARGETS)
"""Each makes a Target: (a folder of its own, what closes it) -> Target."""
