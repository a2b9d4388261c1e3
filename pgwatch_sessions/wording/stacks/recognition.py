"""Recognises a client's stack by its application_name, the tags of its statements, and the statements themselves."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pgwatch_sessions.core.model import Session
from pgwatch_sessions.core.statements import Statement
from pgwatch_sessions.wording.stacks.neutral import NEUTRAL
from pgwatch_sessions.wording.stacks.others import GO, JDBC, NODE, NPGSQL, PGBOUNCER, RAILS
from pgwatch_sessions.wording.stacks.python import ASYNCPG, ASYNCPG_POOL, DJANGO, FASTAPI, PSYCOPG, SQLALCHEMY
from pgwatch_sessions.wording.stacks.stack import Family, Stack, Words, combined

#: The most specific first: a framework before its pool, a pool before its driver. Node is before asyncpg, because Knex
#: sends `BEGIN;` too, and Go is last of the languages, because people write `begin` too.
STACKS = (FASTAPI, DJANGO, RAILS, JDBC, NPGSQL, NODE, ASYNCPG_POOL, SQLALCHEMY, ASYNCPG, PSYCOPG, GO, PGBOUNCER)
#: OpenTelemetry writes `db_framework`, for example `sqlalchemy:2.0`.
_TAG_KEYS = frozenset({"framework", "db_framework", "db_driver"})
_OF_RAILS = frozenset({"namespaced_controller", "source_location"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """The stacks of a client."""

    #: The most specific first; empty if nothing shows them.
    stacks: tuple[Stack, ...]
    #: What shows the first of them, for example `its application name`; empty if there is none.
    evidence: str

    @property
    def words(self) -> Words:
        """The words of the most specific stack that has some, else neutral ones."""
        return combined(*(stack.words for stack in self.stacks), NEUTRAL)


def recognise(sessions: Iterable[Session]) -> Software:
    """Return the stacks that the sessions of one client show. Several of one family can be combined."""
    sessions = tuple(sessions)
    applications = {session.client.application.lower() for session in sessions}
    statements = {session.statement for session in sessions}
    named = {stack: evidence for stack in STACKS if (evidence := _named(stack, applications, statements))}
    shown = {stack: "one of its statements" for stack in STACKS if _shown(stack, statements)}
    # A name or a tag is more reliable than a statement, which a person may have written.
    family = next(
        (stack.family for each in (named, shown) for stack in each if stack.family is not Family.POOLER), None
    )
    found = shown | named
    stacks = tuple(stack for stack in STACKS if stack in found and stack.family in {family, Family.POOLER})
    return Software(stacks=stacks, evidence=found[stacks[0]] if stacks else "")


def _named(stack: Stack, applications: Iterable[str], statements: Iterable[Statement]) -> str:
    if stack.applications is not None and any(map(stack.applications.search, applications)):
        return "its application name"
    if any(value.startswith(stack.tags) for statement in statements for value in _tag_values(statement)):
        return "a tag in its statements"
    return ""


def _tag_values(statement: Statement) -> Iterator[str]:
    tags = dict(statement.tags)
    yield from (tags[key].lower() for key in _TAG_KEYS if key in tags)
    if "framework" not in tags and ({"controller", "action"} <= tags.keys() or _OF_RAILS & tags.keys()):
        yield "rails"  # Rails' query log tags name no framework; others that write controller and action do


def _shown(stack: Stack, statements: Iterable[Statement]) -> bool:
    return stack.statements is not None and any(stack.statements.search(statement.text) for statement in statements)
