"""A sample service for the CI job."""
