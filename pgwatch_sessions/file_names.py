"""Names of files that belong to one server."""

import hashlib
import re

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_LENGTH = 80


def safe_name(server: str) -> str:
    """Return a name that any file system accepts and that is different for each server."""
    safe = _UNSAFE.sub("_", server)[:_LENGTH]
    return safe if safe == server else f"{safe}-{hashlib.sha256(server.encode()).hexdigest()[:8]}"
