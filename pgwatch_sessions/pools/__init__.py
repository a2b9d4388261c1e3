"""For applications: numbers of their connection pools, and the lines of code that borrow connections.

It is independent of the daemon, and imports only the standard library until something is instrumented.
"""
