"""Comments on statements, as the server shows them."""
