"""Servers that are found instead of listed, in the formats of Prometheus' service discovery."""
