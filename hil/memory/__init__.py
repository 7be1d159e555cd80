"""What a node with memory keeps of its past: capacities and ranks of its states."""
