"""Metrics as bytes: which form a client accepts, and each form rendered once per published state."""

import gzip
from collections.abc import Callable, Collection
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

#: Versions of the text and OpenMetrics formats that clients ask for by name. Others are not offered: choose_encoder
#: would promise any version it is asked for, and fails on one that is no number.
_KNOWN_VERSIONS = frozenset({"0.0.1", "0.0.4", "1.0.0"})

#: Selections of names rendered for one published state. Rendering is work for the loop that polls, 3 ms for 500
#: series, and selections are the one way for clients to ask for it again and again.
_MAX_SELECTIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a client accepts, reduced to a closed set: the text formats and their escapings, plain and gzipped."""

    accept: str
    gzip: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposition:
    """A body that can be sent as it stands."""

    content_type: str
    gzip: bool
    body: bytes


class RenderedMetrics:
    """The registry as bytes, rendered at most once for each published state, form and selection of names.

    `published` returns the published state: the same object until the next one is published. Its identity alone
    is looked at. What a collector raises is passed on, and nothing is kept.
    """

    def __init__(self, *, registry: CollectorRegistry, published: Callable[[], object]) -> None:
        self._registry = registry
        self._published = published
        self._state: object = None
        self._whole: dict[tuple[str, bool], Exposition] = {}
        self._named: dict[tuple[frozenset[str], str, bool], Exposition] = {}

    def whole(self, form: Form) -> Exposition:
        """Return every metric."""
        self._forget_former_state()
        # The forms are few, whatever clients send: what is kept is bounded without a rule of its own.
        key = (_content_type(form), form.gzip)
        if key not in self._whole:
            self._whole[key] = _render(self._registry, form)
        return self._whole[key]

    def named(self, names: Collection[str], form: Form) -> Exposition | None:
        """Return only the series of these names, or None when too many selections were asked for in this state."""
        self._forget_former_state()
        key = (frozenset(names), _content_type(form), form.gzip)
        if key not in self._named:
            if len(self._named) >= _MAX_SELECTIONS:
                return None
            self._named[key] = _render(self._registry.restricted_registry(names), form)
        return self._named[key]

    def _forget_former_state(self) -> None:
        state = self._published()
        if state is not self._state:
            self._whole.clear()
            self._named.clear()
            self._state = state


def accepted_form(*, accept: str, accept_encoding: str) -> Form:
    """Reduce the two Accept headers to a form; what is not understood falls back to plain text, uncompressed."""
    ranges = (item for item in accept.replace('"', "").split(",") if _versions(item) <= _KNOWN_VERSIONS)
    return Form(accept=",".join(ranges), gzip=_gzip_accepted(accept_encoding))


def _render(registry: Collector, form: Form) -> Exposition:
    encode, content_type = choose_encoder(form.accept)
    body = encode(registry)
    if form.gzip:
        # Level 1 takes a thirtieth of the rendering's time, and makes a page of metrics ten times smaller.
        body = gzip.compress(body, compresslevel=1, mtime=0)
    return Exposition(content_type=content_type, gzip=form.gzip, body=body)


def _content_type(form: Form) -> str:
    return choose_encoder(form.accept)[1]


def _versions(media_range: str) -> set[str]:
    parameters = (item.strip().partition("=") for item in media_range.split(";"))
    return {value for name, _, value in parameters if name == "version" and value}


def _gzip_accepted(accept_encoding: str) -> bool:
    """Tell whether gzip is named, or covered by `*`, with a weight above 0 (RFC 9110, 12.5.3)."""
    weights = {}
    for item in accept_encoding.lower().split(","):
        coding, _, parameter = item.partition(";")
        weights[coding.strip()] = _weight(parameter)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weight(parameter: str) -> float:
    if not parameter:
        return 1.0
    try:
        return float(parameter.partition("=")[2])
    except ValueError:
        return 0.0
