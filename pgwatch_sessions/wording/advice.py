"""Advice on a finding: the likely cause, what to do, and SQL that terminates its sessions.

The daemon never carries out any of it. It only reads; a person decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.model import Session
from pgwatch_sessions.wording.causes import cause_of
from pgwatch_sessions.wording.remedies import remedies_of
from pgwatch_sessions.wording.runbooks import SERVED
from pgwatch_sessions.wording.stacks.recognition import recognise
from pgwatch_sessions.wording.termination import termination_sql

#: Where the daemon serves it.
RUNBOOK = f"{SERVED}DatabaseConnectionLeak"


class StackAdvice(NamedTuple):
    """The client's driver, pool or framework, and where the runbook has examples for it."""

    name: str
    #: What shows it, for example `its application name`.
    evidence: str
    runbook: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Advice on one finding, as plain text and SQL. Backquotes enclose code."""

    #: The likely cause, in sentences.
    cause: str
    #: What to do, in this order.
    steps: tuple[str, ...]
    #: One SQL statement that terminates all held sessions, the longest held first; None if there are none.
    terminate: str | None
    #: Where the daemon tells more: the path of a runbook, with its anchor. `published` makes it an address.
    runbook: str
    #: The driver, pool or framework that cause and steps are written for; None if nothing shows it.
    stack: StackAdvice | None


def advice_of(finding: Finding, client_sessions: Iterable[Session] = ()) -> Advice:
    """Return the advice on a finding. Other sessions of its client may show which software it uses."""
    software = recognise((*finding.evidence, *client_sessions))
    stack = software.stacks[0] if software.stacks and not finding.is_tool else None
    return Advice(
        cause=cause_of(finding, software.words),
        steps=remedies_of(finding, software.words),
        terminate=termination_sql(finding.sessions),
        runbook=f"{RUNBOOK}#{finding.key.kind.replace('_', '-')}",
        stack=StackAdvice(stack.name, software.evidence, f"{RUNBOOK}#{stack.anchor}") if stack else None,
    )
