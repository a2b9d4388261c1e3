"""Tests of TLS and passwords: real handshakes, real HTTP, real files that change."""
