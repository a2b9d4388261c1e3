"""The Grafana dashboards, as the code that generates them."""
