"""Decides: which sessions are leaked, how much a finding matters, what is wrong with a client or server."""
