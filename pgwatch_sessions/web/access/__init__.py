"""TLS and passwords of the web side, from a file in the layout of Prometheus' exporter-toolkit."""
