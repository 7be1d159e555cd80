"""Transports of simulated instruments: HiSLIP, VXI-11, sockets and serial lines on which real drivers find them."""
