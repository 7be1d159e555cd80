"""The tape: every shot of every device, recorded in chunks and replayed bit for bit."""
