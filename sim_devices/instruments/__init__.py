"""Simulated instruments: their commands, state, memories and faults, without a transport."""
