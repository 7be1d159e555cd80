"""The training process: its loop, its session around it, and what is measured of it."""
