"""`python -m tests.scenarios [NAME]`: play all stories, or those whose name contains NAME, and print the figures.

--random N plays N stories that are drawn at random instead, of every family in turn, and lists what was wrong with
what was drawn. To play one of them again, give its name too: --random 40 --seed 3 'cold start 3.18' --verbose.
"""

import argparse
import sys
from collections.abc import Iterable
from time import perf_counter

from tests.scenarios.expected_failures import EXPECTED_TO_FAIL
from tests.scenarios.judging import Judgement
from tests.scenarios.running import Order, random_names, results
from tests.scenarios.stories import STORIES
from tests.scenarios.tables import classic_table, figures_table, random_table
from tests.scenarios.verdicts import complaints


def main() -> int:
    """Play the selected stories. Return 1 if there is a complaint about any that is not known to fail."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="part of the name of a story or its family")
    parser.add_argument("--random", type=int, metavar="N", help="draw N stories at random, instead of the written ones")
    parser.add_argument("--verbose", action="store_true", help="print each event")
    parser.add_argument("--seed", type=int, default=0, help="seed for other random events, and for --random")
    parser.add_argument("--interval", type=float, help="seconds between polls")
    parser.add_argument("--hold-limit", type=float, help="hold limit in seconds")
    parser.add_argument("--jobs", type=int, help="processes; as many as there are cores by default")
    arguments = parser.parse_args()
    began = perf_counter()
    judgements = []
    for each in results(_orders(arguments), jobs=arguments.jobs):
        judgements.append(each.judgement)
        sys.stdout.writelines(f"{line}\n" for line in each.lines)
        sys.stderr.writelines(f"{line}\n" for line in _complaints(each.judgement))
    sys.stdout.write(f"{figures_table(judgements)}\n{classic_table(judgements)}")
    if arguments.random is not None:
        sys.stdout.write(f"\n{random_table(judgements)}")
    sys.stderr.write(f"{len(judgements)} stories in {perf_counter() - began:.0f} s\n")
    unexpected = [each for each in judgements if complaints(each) and each.name not in EXPECTED_TO_FAIL]
    return int(bool(unexpected))


def _orders(arguments: argparse.Namespace) -> Iterable[Order]:
    wanted = arguments.name.lower()
    if arguments.random is None:
        names = [story.name for story in STORIES if wanted in f"{story.family}: {story.name}".lower()]
    else:
        names = [name for name in random_names(arguments.random, arguments.seed) if wanted in name]
    for name in names:
        yield Order(
            name=name,
            seed=0 if arguments.random is not None else arguments.seed,
            interval=arguments.interval,
            hold_limit=arguments.hold_limit,
            verbose=arguments.verbose,
        )


def _complaints(judgement: Judgement) -> Iterable[str]:
    for complaint in complaints(judgement):
        yield f"{judgement.family}: {judgement.name}: {complaint}"
    if judgement.drawn and complaints(judgement):
        yield f"    drawn: {judgement.drawn}"


if __name__ == "__main__":
    sys.exit(main())
