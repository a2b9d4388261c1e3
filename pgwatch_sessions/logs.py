"""The log of the program and of its libraries: one event per line, in one form, on one stream."""

import functools
import logging
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from pgwatch_sessions.terminal import Paint, laid_out, paint_for
from pgwatch_sessions.wording.lines import Line, Tone

_LEVELS: Mapping[Tone, int] = {
    Tone.GOOD: logging.INFO,
    Tone.NOTE: logging.INFO,
    Tone.WARN: logging.WARNING,
    Tone.BAD: logging.ERROR,
}
#: Of events that have no line.
_LEVEL_TONES: Mapping[str, Tone] = {"warning": Tone.WARN, "error": Tone.BAD, "critical": Tone.BAD}
#: The fields that come first, in this order, before the sentence.
_FIRST = ("timestamp", "level", "event", "server")

#: The lowest level that is logged of each library. APScheduler logs every poll twice, warns at each interval that a
#: slow poll has not ended, and logs a traceback for a poll that is cancelled at the end of the program. An error that a
#: job raises is not lost: it ends the daemon, which prints the traceback.
_LIBRARY_LEVELS = {
    "apscheduler": logging.ERROR,
    "apscheduler.executors": logging.CRITICAL,
    "asyncio": logging.WARNING,
    "uvicorn": logging.WARNING,
}


def configure_logs(
    form: Literal["auto", "json", "console"],
    level: Literal["debug", "info", "warning", "error"],
    stream: TextIO | None = None,
    *,
    name_server: bool = False,
    events: bool = True,
) -> None:
    """Write the events of structlog and of the standard library to a stream, by default standard error.

    With `name_server`, lines for people have the name of the server. Without `events`, only what libraries log is
    written.
    """
    stream = sys.stderr if stream is None else stream
    lowest = logging.getLevelNamesMapping()[level.upper()]
    renderer = _renderer(form, stream, name_server=name_server)
    shared: tuple[Processor, ...] = (
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Plain tracebacks, because values of local variables would show DSNs and passwords.
        structlog.processors.format_exc_info,
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(lowest if events else logging.CRITICAL),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=lowest, force=True)
    logging.captureWarnings(True)
    for library, library_level in _LIBRARY_LEVELS.items():
        logging.getLogger(library).setLevel(lowest if lowest == logging.DEBUG else max(lowest, library_level))
    logging.getLogger("uvicorn.access").disabled = True


def log_line(
    log: FilteringBoundLogger,
    event: str,
    line: Line,
    fields: Mapping[str, Any] | None = None,
    *,
    repeated: bool = False,
) -> None:
    """Log an event with its sentence, at the level of its tone.

    A terminal leaves out `repeated` lines, which say what another line says. Programs get every event.
    """
    log.log(_LEVELS[line.tone], event, line=line, repeated=repeated, **(fields or {}))


def stack_of(error: BaseException) -> str:
    """Return the functions that an error passed through, the innermost first: `rows.py:40 decoded < rows.py:12 read`.

    A traceback as one field, without the text of the error, which may be another each time.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in reversed(frames[-12:]))


def _renderer(form: Literal["auto", "json", "console"], stream: TextIO, *, name_server: bool) -> tuple[Processor, ...]:
    if form == "json" or (form == "auto" and not stream.isatty()):
        return _in_order, structlog.processors.JSONRenderer()
    return (functools.partial(_for_people, paint_for(stream), name_server),)


def _in_order(_: object, __: str, fields: EventDict) -> EventDict:
    """Put what a person looks for first in front, and the sentence in the place of the line."""
    fields.pop("repeated", None)
    line = fields.pop("line", None)
    message = {"message": line.text} if line else {}
    return {**{name: fields[name] for name in _FIRST if name in fields}, **message, **fields}


def _for_people(paint: Paint, name_server: bool, _: object, __: str, fields: EventDict) -> str:
    """Return the line of an event; an event without one, for example of a library, as its text and its fields."""
    if fields.pop("repeated", False):
        raise structlog.DropEvent
    when = f"{fields.pop('timestamp')[: len('2026-11-21T06:27:26')].replace('T', ' ')} UTC"
    level, event = fields.pop("level"), str(fields.pop("event"))
    server = str(fields.pop("server", "")) if name_server else ""
    exception = fields.pop("exception", "")
    line = fields.pop("line", None)
    if line is None:
        text = " ".join((event, *(f"{name}={value!r}" for name, value in fields.items())))
        line = Line(level, _LEVEL_TONES.get(level, Tone.PLAIN), text)
    return laid_out(line, when, paint, server=server) + (f"\n{exception}" if exception else "")
