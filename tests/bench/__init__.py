"""What polls, scrapes and the core cost: numbers side by side in one run, with the limits we set ourselves."""
