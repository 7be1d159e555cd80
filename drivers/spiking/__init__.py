"""The spiking shape: a chip of neurons behind a board that speaks frames on a serial line."""
