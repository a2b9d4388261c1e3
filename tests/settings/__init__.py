"""Tests of the settings: what is read from where, what is refused, and what is shown."""
