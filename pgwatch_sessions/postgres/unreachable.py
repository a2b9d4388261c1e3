"""Why a host cannot be reached, in words: "connection refused at db:5432" instead of an error number."""

import errno
import re
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_RUNNING = "is PostgreSQL running there, and does it listen on that address?"
_ROUTE = "check the address, and the network in between"


class _Words(NamedTuple):
    #: `{}` is the host with its port, or the path of a socket.
    problem: str
    #: What to check.
    question: str


#: By error number. If several addresses of one host fail, the first of these that occurred is reported.
_WORDS: Mapping[int, _Words] = {
    errno.ECONNREFUSED: _Words("connection refused at {}", _RUNNING),
    errno.ENOENT: _Words("there is no socket {}", "is PostgreSQL running, and is that its folder of sockets?"),
    errno.EACCES: _Words("no permission to connect to {}", "check the permissions of the socket, or the firewall"),
    errno.EPERM: _Words("no permission to connect to {}", "check the firewall"),
    errno.EHOSTUNREACH: _Words("no route to {}", _ROUTE),
    errno.ENETUNREACH: _Words("no route to {}", _ROUTE),
    errno.EADDRNOTAVAIL: _Words("no route to {}", _ROUTE),
    errno.ETIMEDOUT: _Words("{} does not answer", _ROUTE),
    errno.ECONNRESET: _Words("{} closed the connection at once", "is it PostgreSQL that listens there?"),
}
_UNKNOWN_NAME = _Words("the host name in {} is unknown", "check its spelling, and this machine's DNS")
_NO_NAME_SERVICE = _Words("the host name in {} cannot be resolved now", "does this machine's DNS answer?")


class UnreachableError(OSError):
    """A host could not be connected to. The text names the host."""

    def __init__(self, problem: str, question: str = "") -> None:
        super().__init__(f"{problem}: {question}" if question else problem)
        self.problem = problem


def explained(error: OSError, host: str) -> UnreachableError:
    """Return the error in words."""
    if isinstance(error, socket.gaierror):
        words = _NO_NAME_SERVICE if error.errno == socket.EAI_AGAIN else _UNKNOWN_NAME
    else:
        # asyncio joins the errors of several addresses into one text, and keeps no number.
        numbers = {error.errno, *map(int, re.findall(r"\[Errno (\d+)\]", str(error)))}
        fallback = _Words("cannot connect to {}", (error.strerror or str(error)).lower())
        words = next((words for number, words in _WORDS.items() if number in numbers), fallback)
    return UnreachableError(words.problem.format(host), words.question)


def none_reachable(problems: Sequence[str]) -> str:
    """Return one text for several hosts. Missing sockets are left out if other hosts were tried too.

    Without a host, the driver tries the usual socket folders before localhost.
    """
    missing = _WORDS[errno.ENOENT].problem.format("")
    named = [problem for problem in problems if not problem.startswith(missing)] or list(problems)
    where = "there, and does it listen on that address" if len(named) == 1 else "on one of them"
    return f"{'; '.join(named)}: is PostgreSQL running {where}?"
