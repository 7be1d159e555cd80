"""Building of objects from checked values: what a file describes is opened, wired and made ready here."""
