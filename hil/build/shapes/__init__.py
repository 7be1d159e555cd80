"""How named instruments become a node: a file a shape. The protocol is hil.build.bench.Shape."""
