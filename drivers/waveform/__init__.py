"""The waveform shape: a generator plays a batch as a record, a digitizer takes the answer, markers align the two."""
