"""Claims about connection leaks, each tried on a real server: `make claims`."""
