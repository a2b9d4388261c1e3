"""A claim, how it is tried, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.claims.laboratory import Laboratory


class Verdict(StrEnum):
    """Whether a claim is true."""

    HOLDS = "holds"
    PARTLY = "holds in part"
    FAILS = "does not hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an experiment measured, and what follows."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    #: What the daemon said of each run, by the name of the run.
    said: Mapping[str, Sequence[str]] = field(default_factory=dict)
    verdict: Verdict
    #: One or two sentences: why, and what to do instead if the claim does not hold.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim of a write-up, in our words."""

    #: The name on the command line and in links, such as `unclosed-session`.
    name: str
    #: The whole sentence: "A write-up on FastAPI leaks claims that …".
    text: str
    #: What is done to try it.
    experiment: str
    attempt: Callable[[Laboratory], Outcome]


def verdict_of(*parts: bool) -> Verdict:
    """Return the verdict on a claim of several parts: whether each of them is true."""
    if all(parts):
        return Verdict.HOLDS
    return Verdict.PARTLY if any(parts) else Verdict.FAILS
