"""`pgwatch-sessions assets`: list and write the files that travel with the package."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pgwatch_sessions.assets.addresses import Addresses, with_addresses
from pgwatch_sessions.assets.catalogue import GROUPS, Asset, Group, assets_of
from pgwatch_sessions.commands.command import EXIT_OK, Command, CommandError
from pgwatch_sessions.terminal import table

_ADDRESSES = ("page_url", "runbook_url", "datasource")


class _Names(tuple[str, ...]):
    """Choices that accept no name at all, which argparse of Python 3.11 compares with the choices like a name."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return name == [] or super().__contains__(name)


_NAMES = _Names(group.name for group in GROUPS)


def _assets(options: argparse.Namespace) -> int:
    groups = [group for group in GROUPS if group.name in options.names or not options.names]
    if options.out is None:
        if any(getattr(options, name) for name in _ADDRESSES) or options.force:
            options.fail("--page-url, --runbook-url, --datasource and --force need --out DIR, which writes the files")
        sys.stdout.writelines(f"{line}\n" for line in (_files(groups) if options.names else _overview(groups)))
        return EXIT_OK
    addresses = _addresses(options)
    assets = [with_addresses(asset, addresses) for group in groups for asset in assets_of(group)]
    _write(assets, options.out, force=options.force)
    return EXIT_OK


def _overview(groups: Sequence[Group]) -> Iterator[str]:
    rows = []
    for group in groups:
        assets = tuple(assets_of(group))
        rows.append((group.name, str(len(assets)), _kilobytes(*assets), group.purpose))
    yield from table(("NAME", "FILES", "KB", "WHAT IT IS FOR"), rows)


def _files(groups: Sequence[Group]) -> Iterator[str]:
    rows = [(asset.path, _kilobytes(asset)) for group in groups for asset in assets_of(group)]
    yield from table(("FILE", "KB"), rows)


def _kilobytes(*assets: Asset) -> str:
    return f"{sum(len(asset.text.encode()) for asset in assets) / 1000:.1f}"


def _addresses(options: argparse.Namespace) -> Addresses:
    page, runbooks = options.page_url, options.runbook_url
    # The daemon serves the runbooks beside its page.
    return Addresses(
        page=page, runbooks=runbooks or (page and f"{page}/runbooks"), datasource=options.datasource or None
    )


def _write(assets: Sequence[Asset], folder: Path, *, force: bool) -> None:
    """Write all files, or none if one of them exists with other content and `force` is not given."""
    try:
        existing = {asset.path: _content(folder / asset.path) for asset in assets}
        changed = [path for asset in assets if existing[path := asset.path] not in {None, asset.text.encode()}]
        if changed and not force:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise CommandError(
                f"{folder / changed[0]}{more}: the file exists with other content, and nothing was written; overwrite "
                "it with --force, or choose another folder with --out"
            )
        for asset in assets:
            target = folder / asset.path
            if existing[asset.path] == asset.text.encode():
                sys.stdout.write(f"unchanged  {target}\n")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(asset.text.encode())
            sys.stdout.write(f"wrote      {target}\n")
    except OSError as error:
        raise CommandError(
            f"{error.filename or folder}: {error.strerror or error}; choose a folder with --out"
        ) from None


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _url(text: str) -> str:
    """Parse an address. Returns it without a slash at its end."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.netloc or not text.isprintable() or set(text) & set(' "\\'):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address; give one like http://db-monitor:9488")
    return text.rstrip("/")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        choices=_NAMES,
        help=f"which files: {', '.join(_NAMES)}. Default: all.",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="write the files into this folder, which is created")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist with other content")
    parser.add_argument(
        "--page-url",
        metavar="URL",
        type=_url,
        help="address of the daemon's page, for alerts and dashboards. Default: in alerts, the address that Prometheus "
        "scrapes; in dashboards, http://localhost:9488.",
    )
    parser.add_argument(
        "--runbook-url",
        metavar="URL",
        type=_url,
        help="address of the runbooks, for alerts and dashboards: the page of a runbook is URL/NAME. Default: "
        "/runbooks of the daemon's page.",
    )
    parser.add_argument(
        "--datasource",
        metavar="NAME",
        help="name or uid of the Grafana data source that the dashboards select. Default: Grafana's own default.",
    )


ASSETS = Command(
    name="assets",
    purpose="list the rules, runbooks, dashboards and configurations that come with the package, or write them",
    description="""\
Lists the files that come with the package: rules, runbooks, dashboards, SQL and example configurations. With --out, it
writes them with your addresses filled in.""",
    add_options=_add_options,
    run=_assets,
    epilog="""\
examples:
  pgwatch-sessions assets
  pgwatch-sessions assets --out pgwatch-sessions
  pgwatch-sessions assets rules --out /etc/prometheus --page-url https://db-monitor.example:9488
  pgwatch-sessions assets dashboards --out . --page-url https://db-monitor.example:9488 --datasource Prometheus

exit codes:
  0  listed or written
  2  wrong usage, a file that exists with other content, or a folder that cannot be written
""",
)
