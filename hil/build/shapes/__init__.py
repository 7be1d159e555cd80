"""Shapes: how named instruments become a node, one file each. The protocol is hil.build.bench.Shape."""
