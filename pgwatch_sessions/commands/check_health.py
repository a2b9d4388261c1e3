"""`pgwatch-sessions check-health`: ask the daemon on this machine whether it is healthy.

Containers run it every few seconds, so it imports little: no pydantic, no web framework, no driver. It reads only the
settings that say where the daemon listens, and ignores errors in all others.
"""

import argparse
import os
import signal
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NoReturn

from pgwatch_sessions.commands.parser import Parser
from pgwatch_sessions.settings.address import DEFAULT_LISTEN, Address
from pgwatch_sessions.settings.sources import Placed, Wrong, option, read_sources, variable

NAME = "check-health"
PURPOSE = "ask the running daemon whether it is healthy: a container's health check"
DESCRIPTION = """\
Asks /healthz of the daemon that the same settings describe, on this machine: at metrics_listen if it is set, otherwise
at listen. The daemon is healthy even while a database is down."""
EPILOG = """\
examples:
  pgwatch-sessions check-health
  pgwatch-sessions check-health --config pgwatch-sessions.yaml

exit codes:
  0  healthy, or the daemon answers but requires a client certificate
  1  not healthy, or no answer within 3 s
  2  wrong usage or configuration
"""

_SECONDS = 3
_MAX_BYTES = 16 * 1024
#: Placeholder and help of each option.
_OPTIONS = {
    "config": ("FILE", "as for run"),
    "secrets_dir": ("DIR", "as for run"),
    "listen": ("ADDRESS", "where the daemon listens"),
    "metrics_listen": ("ADDRESS", "where it listens for Prometheus; asked instead of listen if it is set"),
    "web_config": ("PATH", "the file that switches on TLS"),
}
#: The address to ask if the daemon listens on all interfaces.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # not listened on


def main(arguments: Sequence[str]) -> int:
    """Run the command with the arguments that follow its name. Return the exit code."""
    parser = Parser(
        prog=f"pgwatch-sessions {NAME}",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    return run(parser.parse_args(arguments))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    for name, (placeholder, meaning) in _OPTIONS.items():
        text = f"{meaning} [{variable((name,))}]"
        parser.add_argument(option((name,)), dest=name, metavar=placeholder, help=text)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon, print one line, and return the exit code."""
    try:
        address, may_be_tls = _target({name: getattr(options, name) for name in _OPTIONS}, os.environ)
    except ValueError as error:
        sys.stderr.write(f"pgwatch-sessions: error: {error}\n")
        return 2
    healthy, text = _ask(address, may_be_tls=may_be_tls)
    sys.stdout.write(f"{'healthy' if healthy else 'not healthy'}: {text}\n")
    return 0 if healthy else 1


def _target(options: Mapping[str, object], environ: Mapping[str, str]) -> tuple[Address, bool]:
    """Return the address to ask, and whether it may speak TLS. Raises ValueError with place and reason."""
    listen, metrics_listen, web_config = (variable((name,)) for name in ("listen", "metrics_listen", "web_config"))
    variables, file = read_sources(options, environ, known={listen, metrics_listen, web_config})
    if file.errors and not file.values:
        raise ValueError(str(file.errors[0]))
    given = {
        variable((name,)): Placed(value, file.place((name,)))
        for name, value in file.values.items()
        if value is not None
    }
    for source in reversed(variables):
        given |= source
    for value, place in given.values():
        if isinstance(value, Wrong):
            raise ValueError(f"{place}: {value.message}")  # noqa: TRY004  # wrong is what the user wrote
    value, place = given.get(metrics_listen) or given.get(listen) or Placed(str(DEFAULT_LISTEN), "default")
    try:
        address = Address.read(value)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    if address.port == 0:
        raise ValueError(f"{place}: port 0 lets the system choose a port; set one, so that it can be asked")
    return Address(host=_LOOPBACK.get(address.host, address.host), port=address.port), web_config in given


def _ask(address: Address, *, may_be_tls: bool) -> tuple[bool, str]:
    """Return whether the daemon is healthy, and its answer or the reason."""
    signal.signal(signal.SIGALRM, _expire)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)  # a timeout of the socket would be for each read
    try:
        if may_be_tls:
            try:
                return _answer(HTTPSConnection(address.host, address.port, context=_tls()))
            except ssl.SSLError as error:
                if "ALERT" in (error.reason or ""):  # in TLS 1.3 it comes with the first read after the handshake
                    return True, "the daemon answers, but requires a client certificate"
            except (ConnectionResetError, BrokenPipeError):
                pass  # the web configuration may have passwords but no TLS
        return _answer(HTTPConnection(address.host, address.port))
    except TimeoutError:
        return False, f"no answer at {address} within {_SECONDS} s"
    except HTTPException:
        return False, f"no HTTP server at {address}"
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that DNS does not allow
        reason = getattr(error, "strerror", None) or str(error)
        return False, f"no answer at {address}: {reason[:1].lower()}{reason[1:]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(connection: HTTPConnection) -> tuple[bool, str]:
    with closing(connection):
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        body = response.read(_MAX_BYTES).decode(errors="replace")
    text = "".join(each if each.isprintable() else " " for each in body).strip()
    return response.status == 200, text if response.status == 200 else f"status {response.status}: {text}"


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the address is this machine's, which no certificate names
    context.verify_mode = ssl.CERT_NONE
    return context


def _expire(*_: object) -> NoReturn:
    raise TimeoutError
