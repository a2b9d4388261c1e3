"""Prometheus metrics, made from the published states at each scrape."""
