"""Whether the files that settings are read from have changed."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from pgwatch_sessions.settings.sources import PREFIX, variable

#: It changes when the file changes, or when a link leads to another file; None if the file cannot be reached.
Stamp = tuple[int, ...] | None


def stamp(path: Path) -> Stamp:
    """Return the file's stamp."""
    try:
        status = os.stat(path)  # noqa: PTH116  # faster than Path.stat, and called at each HTTP request
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def source_stamps(
    options: Mapping[str, object], environ: Mapping[str, str], known: Collection[str]
) -> Mapping[Path, Stamp]:
    """Return the stamps of all files that `read_sources` reads with these arguments, and of the secrets directory."""
    return {path: stamp(path) for path in _source_files(options, environ, known)}


def _source_files(options: Mapping[str, object], environ: Mapping[str, str], known: Collection[str]) -> Iterator[Path]:
    given = {name.upper(): text for name, text in environ.items() if text}
    for name in ("config", "secrets_dir"):
        if path := options.get(name) or given.get(variable((name,))):
            yield Path(str(path))
            yield from _secret_files(Path(str(path))) if name == "secrets_dir" else ()
    for name, text in given.items():
        if name.startswith(PREFIX) and name not in known and name.removesuffix("_FILE") in known:
            yield Path(text)


def _secret_files(directory: Path) -> Iterator[Path]:
    try:
        files = list(directory.iterdir())
    except OSError:
        return
    yield from (file for file in files if file.name.upper().startswith(PREFIX))
