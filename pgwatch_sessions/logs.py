"""The log of the program and of its libraries: one event per line, in one form, on one stream."""

import logging
import os
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import Processor

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
) -> None:
    """Write the events of structlog and of the standard library to a stream, by default standard error."""
    stream = sys.stderr if stream is None else stream
    lowest = logging.getLevelNamesMapping()[level.upper()]
    renderer = _renderer(form, stream)
    shared: tuple[Processor, ...] = (
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Plain tracebacks, because values of local variables would show DSNs and passwords.
        structlog.processors.format_exc_info,
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=lowest, force=True)
    logging.captureWarnings(True)
    for library, library_level in _LIBRARY_LEVELS.items():
        logging.getLogger(library).setLevel(lowest if lowest == logging.DEBUG else max(lowest, library_level))
    logging.getLogger("uvicorn.access").disabled = True


def _renderer(form: Literal["auto", "json", "console"], stream: TextIO) -> Processor:
    on_terminal = stream.isatty()
    if form == "json" or (form == "auto" and not on_terminal):
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=on_terminal and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,  # that of rich shows local variables
        # Clients choose their own names; control characters in them must not reach a terminal.
        repr_native_str=True,
    )
