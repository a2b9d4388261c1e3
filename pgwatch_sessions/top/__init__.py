"""The live view in a terminal: where it reads from, what a screen shows, and what the keys do."""
