"""The web side: metrics, JSON and the page over HTTP."""
