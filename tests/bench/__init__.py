"""Measure the cost of polls, scrapes, rules and the core, and compare it with our limits."""
