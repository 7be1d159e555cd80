"""Links: wires that carry whole messages of bytes (VISA, serial, HiSLIP, sockets), with their transcripts."""
