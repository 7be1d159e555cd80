"""The commands of `hil`, one file each."""
