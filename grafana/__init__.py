"""The code that generates the Grafana dashboards."""
