"""Summarises a redacted statement by its verb and tables: `SELECT orders, customers`."""

import re
from collections.abc import Iterator

from pgwatch_sessions.core.statements.commands import NO_SQL

MAX_LENGTH = 60

_NAME = r'(?:"[^"]+"|[^\W\d][\w$]*(?![\w$]))'
_TABLE = rf"{_NAME}(?:\.{_NAME})*"
# A table (not a function), its alias if there is one, and further tables of the same list.
_FROM = rf"{_TABLE}(?![.(])(?:(?: (?:AS )?{_NAME})? ?, ?{_TABLE}(?![.(]))*"
_SOURCES = re.compile(
    rf'(?<![\w."])(?:(?:(?<!DISTINCT )FROM|JOIN|USING) (?:ONLY )?(?P<many>{_FROM})'
    rf"|(?:INTO|(?<!FOR )(?<!KEY )(?<!DO )(?<!ON )UPDATE) (?:ONLY )?(?P<one>{_TABLE}))",
    re.IGNORECASE,
)
_TABLES = re.compile(rf"(?:^|, ?)({_TABLE})")
_QUALIFIED = re.compile(rf'(?<![\w.$"])({_NAME})\.{_NAME}(?![.(])')
# `extract(year FROM …)` and similar calls contain a FROM that names no table.
_KEYWORD_CALLS = re.compile(r"\b(?:EXTRACT|SUBSTRING|TRIM|OVERLAY|POSITION) ?\([^()]*\)", re.IGNORECASE)
_CTE = re.compile(rf'(?<![\w."])({_NAME}) ?(?:\([^()]*\) ?)?AS (?:(?:NOT )?MATERIALIZED ?)?\(', re.IGNORECASE)
_NESTING = re.compile(r'"[^"]*"|[()]|\b(?:SELECT|INSERT|UPDATE|DELETE|MERGE)\b', re.IGNORECASE)
_FIRST_WORD = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(r"[0-9]+")

_VERBS_WITH_TABLES = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "DECLARE"})
#: Verbs of statements that only prepare for the one that matters, if a text holds several.
_PREAMBLE = frozenset({"BEGIN", "START", "SET", "COMMIT", "ROLLBACK", "END"})
#: Verbs whose object often has a generated name, with a number that differs from call to call.
_GENERATED = frozenset(
    {"SAVEPOINT", "RELEASE", "ROLLBACK", "DECLARE", "FETCH", "MOVE", "CLOSE", "PREPARE", "EXECUTE", "DEALLOCATE"}
)


def summary_of(redacted: str) -> str:
    """Summarise a redacted text in at most 60 characters."""
    main = _main_statement(redacted)
    first = _FIRST_WORD.search(main)
    if first is None or main == NO_SQL:
        return shortened(main, MAX_LENGTH)
    verb = first[0].upper()
    if verb in _VERBS_WITH_TABLES:
        shown, body = _behind_ctes(main) if verb == "WITH" else (verb, main)
        tables = list(tables_of(body)) or (list(_qualifiers(main)) if verb == "SELECT" else [])
        if tables:
            return shortened(f"{shown} {', '.join(tables)}", MAX_LENGTH)
    rest = main[first.end() :]
    return shortened(
        main[: first.start()] + verb + (_NUMBER.sub("?", rest) if verb in _GENERATED else rest), MAX_LENGTH
    )


def shortened(text: str, length: int) -> str:
    """Cut a text to `length` characters, including the ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip(" ,.(") + "…"


def _main_statement(redacted: str) -> str:
    """Return the first statement of the text that does more than prepare for others."""
    parts = [part.strip(" ") for part in redacted.split(";")]
    for part in parts:
        first = _FIRST_WORD.search(part)
        if first and first[0].upper() not in _PREAMBLE:
            return part
    return next(filter(None, reversed(parts)), redacted)


def tables_of(statement: str) -> Iterator[str]:
    """Yield each table once, in order, without its schema. Common table expressions are left out."""
    if "(" in statement:
        statement = _KEYWORD_CALLS.sub("", statement)
    named = {_bare(name[1]).lower() for name in _CTE.finditer(statement)}
    for source in _SOURCES.finditer(statement):
        for table in _TABLES.finditer(source["many"] or source["one"]):
            name = _bare(table[1])
            if name.lower() not in named:
                named.add(name.lower())
                yield name


def _qualifiers(statement: str) -> Iterator[str]:
    """Yield the tables of each `table.column`, for a text that was cut before its FROM."""
    yield from dict.fromkeys(_bare(column[1]) for column in _QUALIFIED.finditer(statement))


def _bare(table: str) -> str:
    return table[table.rfind('"', 0, -1) + 1 : -1] if table.endswith('"') else table[table.rfind(".") + 1 :]


def _behind_ctes(statement: str) -> tuple[str, str]:
    """Return the verb after the common table expressions, and the text rearranged to begin with it."""
    depth = 0
    for token in _NESTING.finditer(statement):
        if token[0] in "()":
            depth += 1 if token[0] == "(" else -1
        elif depth == 0 and not token[0].startswith('"'):
            return token[0].upper(), f"{statement[token.start() :]} {statement[: token.start()]}"
    return "WITH", statement
