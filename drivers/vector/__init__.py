"""The vector shape: K levels are set, the node settles, L values are read."""
