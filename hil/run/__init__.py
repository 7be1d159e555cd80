"""The run folder: its lock, journal, checkpoints, status, and what a resume needs to know."""
