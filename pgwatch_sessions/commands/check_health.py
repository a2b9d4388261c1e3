"""`pgwatch-sessions check-health`: ask the daemon beside us whether it is well.

Run by containers every few seconds, so it loads little: no pydantic, no web framework, no driver. Of the settings it
reads those three that say where the daemon listens, and what is wrong with others is not its business.
"""

import argparse
import os
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from pgwatch_sessions.settings import sources
from pgwatch_sessions.settings.address import DEFAULT_LISTEN, Address

NAME = "check-health"
PURPOSE = "ask the running daemon whether it is well: a container's health check"
DESCRIPTION = """\
Asks /healthz of the daemon that the same settings describe, on this machine: at metrics_listen where it is set, else at
listen. A database that is down makes no daemon unhealthy."""
EPILOG = """\
examples:
  pgwatch-sessions check-health
  pgwatch-sessions check-health --config pgwatch-sessions.yaml

exit codes:
  0  healthy; or it wants a client's certificate, and its loop is at work to say so
  1  not healthy, or no answer within 3 s
  2  wrong usage or configuration
"""

_SECONDS = 3.0
_LONGEST_ANSWER = 16 * 1024
_SETTINGS = {
    "listen": "where the daemon listens",
    "metrics_listen": "where it listens for Prometheus, asked instead where it is set",
    "web_config": "what switches on TLS there",
}
_SECRETS = "secrets_dir"
_KNOWN = tuple((name,) for name in _SETTINGS)
#: All interfaces, as an address that can be asked.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # not listened on


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the daemon is well, in one line for people."""

    healthy: bool
    text: str


class _NotTlsError(Exception):
    """Whoever answers does not speak TLS."""


def main(arguments: Sequence[str]) -> int:
    """Obey the arguments after the command's name; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"pgwatch-sessions {NAME}",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    return obey(parser.parse_args(arguments))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the daemon listens."""
    loading = {"config": "FILE", _SECRETS: "DIR"}
    for name, metavar in loading.items():
        parser.add_argument(
            sources.option((name,)), dest=name, metavar=metavar, help=f"as for run [{sources.variable((name,))}]"
        )
    for name, meaning in _SETTINGS.items():
        parser.add_argument(
            sources.option((name,)), dest=name, metavar="VALUE", help=f"{meaning} [{sources.variable((name,))}]"
        )


def obey(options: argparse.Namespace) -> int:
    """Ask, and say it in one line; return the exit code."""
    try:
        address, may_be_tls = _asked(vars(options), os.environ)
    except ValueError as error:
        sys.stderr.write(f"pgwatch-sessions: error: {error}\n")
        return 2
    verdict = health_at(address, may_be_tls=may_be_tls)
    sys.stdout.write(f"{'healthy' if verdict.healthy else 'not healthy'}: {verdict.text}\n")
    return 0 if verdict.healthy else 1


def health_at(address: Address, *, may_be_tls: bool) -> Verdict:
    """Ask whoever listens there, within three seconds in all."""
    until = time.monotonic() + _SECONDS
    try:
        if may_be_tls:
            try:
                return _answer(address, until, _tls())
            except _NotTlsError:  # the web configuration may hold passwords only
                pass
        return _answer(address, until, None)
    except TimeoutError:
        return Verdict(healthy=False, text=f"no answer at {address} within {_SECONDS:.0f} s")
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one of DNS
        reason = getattr(error, "strerror", None) or str(error)
        return Verdict(healthy=False, text=f"no answer at {address}: {reason[:1].lower()}{reason[1:]}")


def _answer(address: Address, until: float, tls: ssl.SSLContext | None) -> Verdict:
    with socket.create_connection((address.host, address.port), timeout=_left(until)) as plain:
        if tls is None:
            return _verdict(_response(plain, address, until))
        try:
            with tls.wrap_socket(plain) as secret:
                return _verdict(_response(secret, address, until))
        except ssl.SSLError as error:
            if "ALERT" in (error.reason or ""):  # at the handshake, or in TLS 1.3 at the first byte after it
                return Verdict(healthy=True, text="it is there, and wants a client's certificate before it says more")
            raise _NotTlsError from None
        except (ConnectionResetError, BrokenPipeError):
            raise _NotTlsError from None


def _response(connection: socket.socket, address: Address, until: float) -> bytes:
    connection.settimeout(_left(until))
    connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
    received = b""
    while len(received) < _LONGEST_ANSWER:
        connection.settimeout(_left(until))
        data = connection.recv(_LONGEST_ANSWER)
        if not data:
            break
        received += data
    return received


def _verdict(response: bytes) -> Verdict:
    head, _, body = response.decode("utf-8", "replace").partition("\r\n\r\n")
    status = head.split(" ")[1:2] if head.startswith("HTTP/1.") else []
    said = "".join(each if each.isprintable() else " " for each in body).strip()
    if not status:
        return Verdict(healthy=False, text="what listens there does not answer in HTTP")
    return Verdict(healthy=status == ["200"], text=said if status == ["200"] else f"status {status[0]}: {said}")


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # It asks its own machine, over loopback, by an address that no certificate names.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _asked(options: Mapping[str, object], environ: Mapping[str, str]) -> tuple[Address, bool]:
    """Return which address to ask, and whether it may speak TLS; ValueError when the settings do not tell."""
    layer = _layer(options, environ)
    name = "metrics_listen" if layer.values.get("metrics_listen") is not None else "listen"
    value = layer.values.get(name)
    try:
        address = DEFAULT_LISTEN if value is None else Address.read(value)
    except ValueError as error:
        raise ValueError(f"{layer.place((name,))}: {error}") from None
    if address.port == 0:
        raise ValueError(f"{layer.place((name,))}: lets the system choose the port; name one, so that it can be asked")
    host = _LOOPBACK.get(address.host, address.host)
    return Address(host=host, port=address.port), layer.values.get("web_config") is not None


def _layer(options: Mapping[str, object], environ: Mapping[str, str]) -> sources.Layer:
    """Return the three settings from all sources, in the order of settings.loading; the others' mistakes are let be."""
    direct, filed = sources.from_variables(environ, known=_KNOWN)
    given = {name: value for name, value in options.items() if name in _SETTINGS}
    layers = [sources.from_options(given), direct, filed]
    directory, file = _given(_SECRETS, options, environ), _given("config", options, environ)
    if directory:
        layers.append(sources.from_secrets(Path(directory), known=_KNOWN, place=_SECRETS))
    if file:
        read = sources.from_file(Path(file), place=sources.option(("config",)))
        if read.errors and not read.values:
            raise ValueError(str(read.errors[0]))
        layers.append(read)
    layer = reduce(lambda high, low: high.over(low), layers)
    for error in layer.errors:
        if error.place == _SECRETS or any(sources.variable(path) in error.place.upper() for path in _KNOWN):
            raise ValueError(str(error))
    return layer


def _given(name: str, options: Mapping[str, object], environ: Mapping[str, str]) -> str | None:
    value = options.get(name)
    return environ.get(sources.variable((name,))) if value is None else str(value)
