"""Tags statements for one engine or one class of connections, and counts the different texts that this makes."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import CodeType

from pgwatch_sessions.pools.sites import CodePlace, capture, resolve
from pgwatch_sessions.pools.tagging.comment import comment_of, is_switched_off, takes_comment
from pgwatch_sessions.pools.tagging.context import tags_now

_log = logging.getLogger("pgwatch_sessions.pools")

#: Comments that are remembered, and texts that are counted.
_MAX_COMMENTS = 5_000
_MAX_TEXTS = 10_000
_MAX_ROUTES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCache:
    """How many prepared statements a driver keeps of each connection, and how to change that."""

    size: int
    #: For example `connect_args={"prepared_statement_cache_size": 500}`.
    setting: str


class Borrow:
    """One borrowed connection: who has it, and whether its statements are tagged."""

    __slots__ = ("is_tagged", "place")

    def __init__(self, place: CodePlace | None = None) -> None:
        #: None if the line is not known yet.
        self.place = place
        #: None before the first statement.
        self.is_tagged: bool | None = None


class StatementTagger:
    """Puts comments before statements. After an error of its own it logs it, and tags no more."""

    def __init__(self, application: str, *, sample_every: int = 1, own_pool: Collection[CodeType] = ()) -> None:
        """Of each route, tag the first borrow and then every `sample_every`-th.

        `own_pool` is code of the application that lends connections, so it is never the borrower.
        """
        if sample_every < 1:
            raise ValueError("sample_every must be at least 1")
        self.application = application
        #: None while it is not known, or if the driver keeps none.
        self.cache: PreparedCache | None = None
        self._sample_every = sample_every
        self._own_pool = frozenset(own_pool)
        self._is_on = not is_switched_off()
        self._comments: dict[tuple[object, ...], str] = {}
        self._texts: set[tuple[str, str]] = set()
        self._borrows: dict[str, int] = {}
        self._has_warned = False

    @property
    def is_on(self) -> bool:
        """Whether statements are tagged: not switched off by the environment, closed, or stopped by an error."""
        return self._is_on

    @property
    def texts(self) -> int:
        """The number of different texts so far; it is counted up to 10,000."""
        return len(self._texts)

    def close(self) -> None:
        """Tag no more."""
        self._is_on = False

    def borrow(self) -> Borrow:
        """Return a new borrow by the line of the application that calls now."""
        return Borrow(capture(without=self._own_pool) if self._is_on else None)

    def tagged(self, statement: str, borrow: Borrow | None) -> str:
        """Return the statement with a comment before it, or as it is."""
        if not self._is_on:
            return statement
        try:
            return self._tagged(statement, Borrow() if borrow is None else borrow)
        except Exception:  # noqa: BLE001  # a tag is never worth a failed statement
            self._is_on = False
            _log.exception("statements of %s are not tagged any more, because tagging failed", self.application)
            return statement

    def _tagged(self, statement: str, borrow: Borrow) -> str:
        tags = tags_now()
        if borrow.place is None:
            borrow.place = capture(without=self._own_pool)
        if borrow.is_tagged is None:
            borrow.is_tagged = self._is_sampled(tags)
        if not borrow.is_tagged:
            return statement
        key = (borrow.place, *tags.items())
        comment = self._comments.get(key)
        if comment is None:
            comment = comment_of({"application": self.application, **tags, **_place_tags(borrow.place)})
            if len(self._comments) >= _MAX_COMMENTS:
                self._comments.clear()
            self._comments[key] = comment
        if (comment, statement) not in self._texts:
            if not takes_comment(statement):
                return statement
            self._count(comment, statement)
        return comment + statement

    def _is_sampled(self, tags: Mapping[str, str]) -> bool:
        if self._sample_every == 1:
            return True
        route = tags.get("route") or tags.get("controller") or tags.get("job") or ""
        borrows = self._borrows.get(route, 0)
        if borrows or len(self._borrows) < _MAX_ROUTES:
            self._borrows[route] = borrows + 1
        return borrows % self._sample_every == 0

    def _count(self, comment: str, statement: str) -> None:
        if len(self._texts) < _MAX_TEXTS:
            self._texts.add((comment, statement))
        if not self._has_warned and self.cache is not None and 0 < self.cache.size < len(self._texts):
            self._has_warned = True
            _log.warning(
                "tagged statements of %s have more different texts than the %d prepared statements that the driver "
                "keeps for each connection, so it prepares some of them again and again. Raise %s (each statement "
                "takes about 15 kB of the server's memory for each connection), or pass sample_every=10",
                self.application,
                self.cache.size,
                self.cache.setting,
            )


def _place_tags(place: CodePlace | None) -> Mapping[str, str]:
    if place is None:
        return {}
    site = resolve(place)
    return {"file": site.file, "line": str(site.line), "func": site.function}
