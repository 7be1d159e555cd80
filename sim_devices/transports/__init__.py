"""Transports of simulated instruments: HiSLIP, sockets and serial lines on which real drivers find them."""
