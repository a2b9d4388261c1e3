"""What can be set, how it is read, and how it is shown."""
