"""`python -m tests.scenarios [NAME]`: play all stories, or those whose name contains NAME, and print the figures.

--verbose also prints the events of each story.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace

from pgwatch_sessions.core.events import DiagnosisChanged, LeakChanged, LeakClosed, LeakOpened
from tests.scenarios.judging import Judgement, judge
from tests.scenarios.playing import FindingEvent, Played, play
from tests.scenarios.stories import STORIES
from tests.scenarios.story import Story
from tests.scenarios.tables import classic_table, figures_table
from tests.scenarios.verdicts import complaints


def main() -> int:
    """Play the selected stories. Return 1 if there is a complaint about any of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="part of the name of a story or its family")
    parser.add_argument("--verbose", action="store_true", help="print each event")
    parser.add_argument("--seed", type=int, default=0, help="seed for other random events in the same stories")
    parser.add_argument("--interval", type=float, help="seconds between polls")
    parser.add_argument("--hold-limit", type=float, help="hold limit in seconds")
    arguments = parser.parse_args()
    wanted = arguments.name.lower()
    stories = [story for story in STORIES if wanted in f"{story.family}: {story.name}".lower()]
    judgements = [_play_and_judge(_varied(story, arguments), arguments) for story in stories]
    sys.stdout.write(f"{figures_table(judgements)}\n{classic_table(judgements)}")
    return int(any(complaints(judgement) for judgement in judgements))


def _varied(story: Story, arguments: argparse.Namespace) -> Story:
    if arguments.interval is not None:
        story = replace(story, interval=arguments.interval)
    if arguments.hold_limit is not None:
        story = replace(story, policy=replace(story.policy, hold_limit=arguments.hold_limit))
    return story


def _play_and_judge(story: Story, arguments: argparse.Namespace) -> Judgement:
    played = play(story, seed=arguments.seed)
    judgement = judge(played)
    if arguments.verbose:
        sys.stdout.writelines(f"{line}\n" for line in _lines(played))
    for complaint in complaints(judgement):
        sys.stderr.write(f"{story.family}: {story.name}: {complaint}\n")
    return judgement


def _lines(played: Played) -> Iterable[str]:
    yield f"== {played.story.name} ({'healthy' if played.story.healthy else 'leak'})"
    first = played.ledger[0].at if played.ledger else None
    yield f"   leaked: {len(played.ledger)} sessions" + (f", the first at {first:.0f} s" if first is not None else "")
    yield from (
        f"   limit of {scope} {name} reached at {at:.0f} s" for (scope, name), at in played.exhausted_at.items()
    )
    yield from (f"{at:7.0f} s  {_line(event)}" for at, event in played.events)


def _line(event: FindingEvent) -> str:
    match event:
        case DiagnosisChanged(diagnosis, before):
            who = diagnosis.client.application if diagnosis.client else "server"
            return f"diagnosed {who}: {before} -> {diagnosis.verdict} ({diagnosis.reason})"
        case LeakOpened(finding) | LeakChanged(finding) | LeakClosed(finding):
            client, kind, site = finding.key
            return (
                f"{type(event).__name__.lower():9} {finding.severity:8} {kind} {client.application} at {site!r}: "
                f"{len(finding.sessions)} of {finding.total} sessions, {finding.rate_per_minute:.2f}/min, "
                f"full in {finding.exhaustion_seconds:.0f} s, is_leak={finding.is_leak}, harm {finding.harm}"
            )


if __name__ == "__main__":
    sys.exit(main())
