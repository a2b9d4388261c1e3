"""Pictures of the page and of the terminal, taken while a service leaks on a real server."""
