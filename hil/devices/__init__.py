"""Wrappers that are Devices themselves: they count, recover, and look at what passes."""
