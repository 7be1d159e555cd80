"""The drift sentinel: it looks at the node during a run, tells drift from noise, and follows it."""
