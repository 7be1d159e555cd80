"""What the page of a calibration shows: the main figures of each kind of node, the words for its numbers, the verdict."""
