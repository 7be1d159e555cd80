"""The parts of benchmarks/hostile.py: each has measure(quick) -> figures."""
