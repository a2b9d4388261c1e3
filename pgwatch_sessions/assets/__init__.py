"""The files that travel with the package: rules, runbooks, dashboards, SQL and configurations."""
