"""What the audience sees of the daemon while the story goes on, and what an act comes to."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable

from pgwatch_sessions.core.model import Client
from pgwatch_sessions.demo import speech, words
from pgwatch_sessions.demo.scoreboard import Score, measured
from pgwatch_sessions.demo.traffic import Outcome, Traffic, get
from pgwatch_sessions.published_states import PublishedStates

_TICK_SECONDS = 0.05
_POLL_SECONDS = 20.0


class NotAsToldError(Exception):
    """What the story promises did not happen."""


class Stage:
    """One client of one watched server, and the traffic that goes to it."""

    def __init__(
        self, board: PublishedStates, server: str, client: Client, traffic: Traffic, *, standing_every: float
    ) -> None:
        """Begin with nothing told."""
        #: Seconds between two lines on how things stand.
        self.standing_every = standing_every
        self._board = board
        self._server = server
        self._client = client
        self._traffic = traffic
        self._counted = Counter[Outcome]()
        self._standing_told_at = time.monotonic()
        #: The state that the audience knows.
        self.told = board.states()[server]

    async def tell(self) -> None:
        """Tell what changes, and now and then how things stand, until cancelled."""
        while True:
            state = self._board.states()[self._server]
            if state is not self.told:
                for text, tone in words.changes(self.told, state):
                    speech.at(time.time(), text, tone)
                self.told = state
            if self._traffic.address and time.monotonic() - self._standing_told_at >= self.standing_every:
                self._standing_told_at = time.monotonic()
                speech.at(time.time(), words.standing(self._client, state), speech.Tone.FAINT)
            await asyncio.sleep(_TICK_SECONDS)

    async def until(self, condition: Callable[[], bool], *, at_least: float = 0.0, at_most: float) -> bool:
        """Wait for a condition and for the least time, in seconds; False if it does not hold in the most time."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < at_most:
            if passed >= at_least and condition():
                return True
            await asyncio.sleep(_TICK_SECONDS)
        return False

    def begin_act(self, name: str, introduction: str) -> None:
        """Introduce what comes, and count its requests from here."""
        speech.say(f"\n{name}", speech.Tone.TITLE)
        speech.paragraph(introduction)
        self._standing_told_at = time.monotonic()
        self.begin_counting()

    def begin_counting(self) -> None:
        """Count requests from here."""
        self._counted = self._traffic.outcomes.copy()

    def outcomes(self) -> Counter[Outcome]:
        """Return what came of requests since the act began."""
        return self._traffic.outcomes - self._counted

    async def score(self) -> Score:
        """Measure the act, once another poll has succeeded."""
        assert self._traffic.address  # noqa: S101 - there is no act without a service
        last = self.told
        await self.until(lambda: self.told is not last and self.told.summary is not None, at_most=_POLL_SECONDS)
        state, view = self.told, self.told.summary
        if view is None:
            raise NotAsToldError(f"the daemon has seen nothing for {_POLL_SECONDS:.0f} s")
        _, pool = await get(self._traffic.address, "/pool")
        return measured(self._client, state, view, json.loads(pool), self.outcomes())
