"""A short name for a redacted text: equal for all texts that one place in a program sends."""

import re
from hashlib import blake2b

from pgwatch_sessions.core.statements.redaction import collapse_lists

_PARAMETER = re.compile(r"\$[0-9]+")
# Numbers in names come from generators (savepoints, cursors, partitions, aliases).
_NUMBER = re.compile(r"[0-9]+")
_SIGN = re.compile(r"(?<=[(,=<> ])[-+] ?\?")
# What a cut leaves of a list: a row not closed behind another, or a value not begun.
_CUT_ROW = re.compile(r"\) ?, ?\([^()]*\Z")


def fingerprint(redacted: str) -> str:
    """Return 16 hexadecimal digits, the same in every process and version of Python."""
    text = _SIGN.sub("?", _PARAMETER.sub("?", redacted))
    text = _CUT_ROW.sub(")", collapse_lists(text)).rstrip(" ,(;")
    return blake2b(_lower(_NUMBER.sub("0", text)).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _lower(text: str) -> str:
    """Fold case as PostgreSQL does: outside double quotes, ASCII only."""
    parts = text.split('"')
    parts[::2] = [part.encode(errors="surrogatepass").lower().decode(errors="surrogatepass") for part in parts[::2]]
    return '"'.join(parts)
