"""Host names to addresses, so that a name that is not answered holds up nothing else."""

import asyncio
import contextlib
import ipaddress
import socket
import threading

Addresses = tuple[str, ...]


class Names:
    """Looks up host names: each in a thread of its own, and one name in one thread at a time.

    asyncio has a few threads for all lookups of a program. A name that is not answered keeps one of them for half a
    minute, so that a handful of such names holds up all others, and the end of the program too. Our threads hold up
    neither, and there are never more of them than names.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], asyncio.Future[Addresses | OSError]] = {}

    async def addresses(self, host: str, port: int) -> Addresses:
        """Return the addresses of a host; OSError if it has none. If cancelled, the next call waits for the same."""
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host)
            return (host,)
        key = host, port
        if key not in self._running:
            found: asyncio.Future[Addresses | OSError] = asyncio.get_running_loop().create_future()
            self._running[key] = found
            found.add_done_callback(lambda _: self._running.pop(key))
            threading.Thread(target=_look_up, args=(host, port, found), name=f"look up {host}", daemon=True).start()
        answer = await asyncio.shield(self._running[key])
        if isinstance(answer, OSError):
            raise answer
        return answer


def _look_up(host: str, port: int, found: "asyncio.Future[Addresses | OSError]") -> None:
    answer: Addresses | OSError
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        answer = tuple(dict.fromkeys(str(address[0]) for *_, address in answers))
    except OSError as error:
        answer = error
    except UnicodeError:  # an empty label, or one that is too long
        answer = socket.gaierror(socket.EAI_NONAME, "not a host name")
    with contextlib.suppress(RuntimeError):  # the loop has ended
        found.get_loop().call_soon_threadsafe(_answer, found, answer)


def _answer(found: "asyncio.Future[Addresses | OSError]", answer: Addresses | OSError) -> None:
    if not found.done():
        found.set_result(answer)
