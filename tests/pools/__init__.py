"""Tests of what applications use, on real pools and a real server."""
