"""`python -m pgwatch_sessions`."""

from pgwatch_sessions.cli import main

main()
