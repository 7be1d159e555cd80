"""Links: wires that carry whole messages of bytes (VISA, serial, HiSLIP, VXI-11, sockets), with their transcripts."""
