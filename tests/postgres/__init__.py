"""Tests of the poll, on real servers."""
