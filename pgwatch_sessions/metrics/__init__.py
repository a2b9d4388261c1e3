"""Prometheus metrics, derived from the published states at each scrape."""
