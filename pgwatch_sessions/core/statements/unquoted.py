"""Masks values that are not written as literals: in SET, after PASSWORD, addresses and tokens.

Such statements run (`SET my.api_key TO key_1`), or fail and are shown all the same. All patterns are for text in which
literals are `?` already.
"""

import re

_MAX_PASSES = 10

_QUOTED = r'"[^"]*"'
_NAME = rf"@{{0,2}}(?:{_QUOTED}|[\w$?-]+)(?:\.(?:{_QUOTED}|[\w$?-]+))*"

#: The statements of a text. A quoted name may hold a `;`.
STATEMENTS = re.compile(rf"(?:[^;\"]|{_QUOTED})+")

#: SET forms that take names, not values.
_TAKE_NAMES = "SESSION|LOCAL|TRANSACTION|CHARACTERISTICS|AUTHORIZATION|ROLE|CONSTRAINTS|TIME|XML"
_SET = re.compile(
    rf"( ?SET (?:(?:SESSION|LOCAL|GLOBAL) )?(?!(?:{_TAKE_NAMES})\b){_NAME}(?: ?:?= ?| TO | ))(?=[^ ]).*",
    re.IGNORECASE | re.DOTALL,
)
_SET_OF_OTHERS = re.compile(
    rf"( ?(?:ALTER|CREATE) .*?\bSET {_NAME}(?: ?= ?| TO ))(?=[^ ]).*", re.IGNORECASE | re.DOTALL
)
_HAS_SET = re.compile(r"(?:^|;) ?(?:SET|ALTER|CREATE) ", re.IGNORECASE)

#: A password that is no literal may have several words, so the rest of the statement is left out.
_ROLE_PASSWORD = re.compile(
    r"( ?(?:CREATE|ALTER) (?:ROLE|USER|GROUP) .*?\bPASSWORD(?: ?= ?| ))(?!NULL\b|\?)[^ ].*", re.IGNORECASE | re.DOTALL
)
_IDENTIFIED = re.compile(rf"\b(IDENTIFIED (?:WITH [\w?]+ )?(?:BY|AS) )(?:{_QUOTED}|[^ ,;()\"])+", re.IGNORECASE)
_SECRETS = "(?:passw|pwd|secret|token|api_?key)"
_NAMES_SECRET = re.compile(_SECRETS, re.IGNORECASE)
#: People write values in double quotes by mistake, and then the statement fails. All other names are matched, so that
#: no match begins inside of one.
_SECRET = re.compile(
    rf'((?:"[^"]*{_SECRETS}[^"]*"|[\w$]*{_SECRETS}[\w$]*)'
    r' ?(?:[=:<>!~]+|TO\b|IS\b|LIKE\b|BY\b)? ?)"[^"]*"(?![.(])|"[^"]*"|[\w$]+',
    re.IGNORECASE,
)
#: `jane@example.com`. The operators that begin with `@` do not follow a word and go before one at once.
_ADDRESS = re.compile(r"(?<![\w.%+?-])[\w.%+?-]*[\w?](?:@(?:[\w?][\w.?-]*|\Z))+")
#: A JSON Web Token, also if a part of it was too long for a name.
_TOKEN = re.compile(r"(?<![\w$])eyJ[\w$?=-]*(?:\.[\w$?=-]*)*|\?(?:\.[\w$?=-]+)+")


def without_unquoted_values(text: str) -> str:
    """Replace values that are not written as literals by `?`. What one pattern masks may be part of a longer value."""
    for _ in range(_MAX_PASSES):
        masked = _masked(text)
        if masked == text:
            break
        text = masked
    return text


def _masked(text: str) -> str:
    if "@" in text:
        text = _ADDRESS.sub("?", text)
    if "eyJ" in text or "?." in text:
        text = _TOKEN.sub("?", text)
    if _HAS_SET.search(text):
        text = STATEMENTS.sub(_without_settings, text)
    if '"' in text and _NAMES_SECRET.search(text):
        text = _SECRET.sub(lambda match: f"{match[1]}?" if match[1] else match[0], text)
    return _IDENTIFIED.sub(r"\1?", text) if "IDENTIFIED" in text.upper() else text


def _without_settings(statement: re.Match[str]) -> str:
    found = next(
        (match for each in (_SET, _SET_OF_OTHERS, _ROLE_PASSWORD) if (match := each.fullmatch(statement[0]))), None
    )
    return statement[0] if found is None else f"{found[1]}?"
