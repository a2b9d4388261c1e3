"""Keeps rendered answers until the next state is published, so that requests cannot make the daemon render without end.

Rendering is done in the event loop that polls: 500 series of metrics take 3 ms.
"""

from collections.abc import Callable, Hashable


class RenderCache:
    """The answers of one published state, at most `limit` different ones.

    `published` returns the published state: the same object until the next one is published. Only its identity is
    compared.
    """

    def __init__(self, published: Callable[[], object], *, limit: int = 64) -> None:
        self._published = published
        self._limit = limit
        self._state: object = None
        self._answers: dict[Hashable, bytes] = {}

    def get(self, key: Hashable, render: Callable[[], bytes]) -> bytes | None:
        """Return the answer for the key, rendered if it is new; None if the limit is reached.

        If `render` raises, the error is passed on and nothing is kept.
        """
        state = self._published()
        if state is not self._state:
            self._answers.clear()
            self._state = state
        if key not in self._answers:
            if len(self._answers) >= self._limit:
                return None
            self._answers[key] = render()
        return self._answers[key]
