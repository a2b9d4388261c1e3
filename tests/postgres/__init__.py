"""Tests of the look, on real servers."""
