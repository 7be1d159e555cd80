"""What kill.py is made of: the log of the simulated outputs, and the grid of moments in the recovery ladder."""
