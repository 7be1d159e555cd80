"""What benchmarks/fuzz.py is made of: a mutator, and the readers that it is turned on."""
