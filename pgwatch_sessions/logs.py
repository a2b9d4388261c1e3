"""Our log and that of the libraries: one event a line, in one form, on one stream."""

import logging
import os
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import Processor

#: The least of what libraries say that is for our users. APScheduler tells of every poll twice, warns at each interval
#: that a slow poll goes on, and has a traceback for one that the end of the program cancels. What a job raises is not
#: lost with it: it ends the daemon, which says so itself.
_LIBRARIES = {
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
    """Send the events of structlog and of the standard library to a stream, standard error unless told."""
    stream = sys.stderr if stream is None else stream
    least = logging.getLevelNamesMapping()[level.upper()]
    renderer = _renderer(form, stream)
    shared: tuple[Processor, ...] = (
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Plain tracebacks: values of local variables would show DSNs and passwords.
        structlog.processors.format_exc_info,
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
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
    logging.basicConfig(handlers=[handler], level=least, force=True)
    logging.captureWarnings(True)
    for library, least_of_library in _LIBRARIES.items():
        logging.getLogger(library).setLevel(least if least == logging.DEBUG else max(least, least_of_library))
    logging.getLogger("uvicorn.access").disabled = True


def _renderer(form: Literal["auto", "json", "console"], stream: TextIO) -> Processor:
    on_terminal = stream.isatty()
    if form == "json" or (form == "auto" and not on_terminal):
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=on_terminal and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,  # never rich's, which shows local variables
        # Names come from whoever connects to the server: control characters must not reach a terminal.
        repr_native_str=True,
    )
