"""Software twins: one physics a file, and virtual benches of simulated instruments around it."""
