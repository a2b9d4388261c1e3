"""What a fault is: how it is made, and what the daemon must say of it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType

from tests.faults.scene import INTERVAL, Scene

#: Seconds by which things may be late on a busy machine.
SLACK = 1.0


class Seen(Enum):
    """What `up` must be while a fault holds, an interval and a deadline after its beginning."""

    #: 1, at all times: the fault does not keep the daemon from polling.
    ALWAYS = auto()
    #: 0, until the fault has ended.
    NEVER = auto()
    #: 1, although the fault still holds. So many polls before may fail as `polls_lost` says.
    AGAIN = auto()
    #: Nothing: no daemon answers.
    UNANSWERED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, and what is expected of the daemon."""

    name: str
    #: The fault begins when the block does, and has ended when the block has.
    make: Callable[[Scene], AbstractContextManager[None]]
    seen: Seen
    #: For which of these reasons polls may fail. At least one poll must fail if the server is never seen.
    reasons: frozenset[str] = frozenset()
    #: Whether the leaked sessions outlive the fault. If not, their finding must be closed, once.
    sessions_survive: bool = True
    #: If the server is seen again: how many polls may fail before.
    polls_lost: int = 1
    #: Values that metrics without further labels must have at the end of the fault.
    shown: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    #: Events that must be logged because of the fault.
    logged: tuple[str, ...] = ()
    #: Whether scrapes may be refused or wait while the fault holds.
    scrapes_may_fail: bool = False
    #: Whether the fault is there before the daemon is started.
    before_start: bool = False
    #: A poll's deadline in seconds.
    timeout: float = 0.8
    #: Settings of the server.
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: Whether the daemon connects through a proxy, and over TLS.
    is_behind_proxy: bool = False
    has_tls: bool = False
    #: Whether recordings are on a disk of their own, of 256 KiB. Only root can make one.
    has_small_disk: bool = False

    def due(self, made: float) -> float:
        """Return from when on what is said of the fault must be right, if it was made at this time."""
        if self.seen is Seen.ALWAYS:
            return made
        polls = 1 + self.polls_lost if self.seen is Seen.AGAIN else 1
        return made + polls * (INTERVAL + self.timeout) + SLACK
