"""One live web page over many runs, searches, comparisons and calibrations; the only folder that imports nicegui."""
