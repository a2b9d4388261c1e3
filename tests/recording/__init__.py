"""Tests of recordings: reading, writing, files and segments."""
