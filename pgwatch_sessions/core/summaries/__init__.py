"""Adds up: one poll, one client, and the counters since the daemon started."""
