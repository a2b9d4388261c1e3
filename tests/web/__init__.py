"""Tests of what the daemon answers over HTTP."""
