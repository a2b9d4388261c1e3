"""Every event that a poll can cause. The core returns events as values; the code around it logs and counts them."""

from typing import NamedTuple

from pgwatch_sessions.core.findings import Diagnosis, Finding, Verdict
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import Failure


class LeakOpened(NamedTuple):
    """A finding was opened."""

    finding: Finding


class LeakChanged(NamedTuple):
    """State, kind, site or severity of a finding changed, it began to block others, or a number by over a fifth."""

    finding: Finding
    #: The finding as it was last reported.
    before: Finding


class LeakClosed(NamedTuple):
    """A finding was closed: its sessions have ended or are being used again."""

    finding: Finding


class DiagnosisChanged(NamedTuple):
    """The verdict on a client or on the server changed."""

    diagnosis: Diagnosis
    #: None when there was no verdict before.
    before: Verdict | None


class ServerUp(NamedTuple):
    """A poll succeeded: the first one, or the first after a failed one."""

    #: The server's slots for ordinary roles; None if its limit is not known.
    slots: SlotUsage | None = None


class ServerDown(NamedTuple):
    """Polls began to fail, or now fail for another reason."""

    failure: Failure


class PrivilegeMissing(NamedTuple):
    """The monitoring role may not see the state of some sessions. Reported once."""

    role: str | None
    hidden_sessions: int
    #: All sessions, visible ones included.
    sessions: int


class ClientsFolded(NamedTuple):
    """There are more clients than `max_clients`; the smallest are combined into `other`. Reported once."""

    folded_clients: int


LeakEvent = LeakOpened | LeakChanged | LeakClosed
ServerEvent = ServerUp | ServerDown | PrivilegeMissing | ClientsFolded
Event = ServerEvent | LeakEvent | DiagnosisChanged
