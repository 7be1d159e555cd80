"""What each command of `hil` does, one file a command."""
