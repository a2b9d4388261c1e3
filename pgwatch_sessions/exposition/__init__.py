"""What goes out: metrics, JSON and pages, all derived from the published state."""
