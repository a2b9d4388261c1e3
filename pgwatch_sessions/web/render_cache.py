"""What is rendered for clients, once for each published state, whatever they ask and however often."""

from collections.abc import Callable, Hashable

#: Different answers kept, and rendered, for one published state: rendering is work for the loop that polls.
MAX_ANSWERS = 64


class RenderCache:
    """Answers of one published state, forgotten with it.

    `published` returns the published state: the same object until the next one is published. Its identity alone is
    looked at. What a rendering raises is passed on, and nothing is kept.
    """

    def __init__(self, published: Callable[[], object]) -> None:
        self._published = published
        self._state: object = None
        self._rendered: dict[Hashable, bytes] = {}

    def once(self, key: Hashable, render: Callable[[], bytes]) -> bytes | None:
        """Return the answer of this key, or None when too many different ones were asked for in this state."""
        state = self._published()
        if state is not self._state:
            self._rendered.clear()
            self._state = state
        if key not in self._rendered:
            if len(self._rendered) >= MAX_ANSWERS:
                return None
            self._rendered[key] = render()
        return self._rendered[key]
