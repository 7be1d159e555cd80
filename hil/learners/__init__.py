"""Training rules, one rule a file; what they share is in parts/."""
