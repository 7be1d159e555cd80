"""Virtual benches: simulated instruments wired to a twin, served by a process of their own."""
