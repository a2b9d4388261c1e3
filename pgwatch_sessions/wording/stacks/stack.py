"""A stack: a driver, pool or framework, how it is recognised, and its words for advice."""

import re
from dataclasses import dataclass, fields
from enum import StrEnum


class Family(StrEnum):
    """The stacks of one family are used together, those of two families are not."""

    PYTHON = "python"
    JVM = "jvm"
    RUBY = "ruby"
    NODE = "node"
    DOTNET = "dotnet"
    GO = "go"
    #: In front of the server, whatever the application is written in.
    POOLER = "pooler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Parts of sentences; backquotes enclose code. An empty one leaves the words to the next stack."""

    #: Completes "never committed, rolled back or closed. Usual causes: …".
    transaction_causes: str = ""
    #: Completes "Usual causes: an external call or a long computation inside the transaction, or …".
    stays_open: str = ""
    #: Completes "Transactions were opened and no statement followed: …, or a request that was cancelled".
    begun: str = ""
    #: Completes "used outside a transaction and not returned to the pool. Usual causes: …".
    connection_causes: str = ""
    #: Completes "keeps opening connections and does not use the earlier ones again. Usual causes: …".
    growth_causes: str = ""
    #: Completes "They belong to pools that are no longer used: … made for each request".
    abandoned: str = ""
    #: Sentences: how to find the process behind the sessions, if it is not at their address.
    behind: str = ""
    #: Sentences: what happens to the application's pool when its sessions are terminated.
    terminated: str = ""
    #: Sentences: what each way out of the code must do, and what does not belong into a transaction.
    transaction_code: str = ""
    #: Completes "look for … near SITE".
    connection_code: str = ""
    #: Completes "look for … that are made for each request".
    growth_code: str = ""
    #: Completes "Prevention: …, and time-outs on the pool and on external calls".
    transaction_guard: str = ""
    #: Completes "Prevention: …, one pool for the life of the process".
    connection_guard: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A driver, pool or framework."""

    name: str
    family: Family
    #: Its heading in the runbook, as a link writes it.
    anchor: str
    words: Words
    #: Matches application names, in lower case, that it sets or that people choose because they use it.
    applications: re.Pattern[str] | None = None
    #: How the values of the tags `framework`, `db_framework` and `db_driver` begin, in lower case.
    tags: tuple[str, ...] = ()
    #: Matches redacted statements that it sends and others do not.
    statements: re.Pattern[str] | None = None


def combined(*words: Words) -> Words:
    """Return for each part the first that is not empty."""
    return Words(
        **{
            field.name: next((text for each in words if (text := getattr(each, field.name))), "")
            for field in fields(Words)
        }
    )
