"""What is remembered across a restart of the daemon: the state of each server, in a file of its own."""
