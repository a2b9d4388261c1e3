"""What the program says: every label, sentence and piece of advice, in one place."""
