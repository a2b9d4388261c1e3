"""Every text that the program shows to people: labels, sentences, and advice. Each text is written once, here."""
