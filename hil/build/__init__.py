"""From checked values to objects: what a file describes is opened, wired and made ready here."""
