"""Random services: every value that is drawn has a name, so that a person can read what a story is made of."""

import math
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import TypeVar

from tests.scenarios.chance import Rate, changing, steady
from tests.scenarios.pools import (
    Pool,
    asyncpg_pool,
    autocommit,
    database_sql,
    django,
    hikari,
    node_postgres,
    pgx,
    psycopg_pool,
    sqlalchemy,
)

T = TypeVar("T")

#: What drivers and applications send when a connection is opened: the last of them is what the server shows.
SETUPS: Mapping[str, tuple[str, ...]] = {
    "nothing": (),
    "SET": ("SET TIME ZONE 'UTC'", "SET search_path TO shop, public"),
    "set_config": ("SELECT set_config('TimeZone', 'UTC', false)",),
    "several set_config": ("SELECT set_config('search_path', $1, false), set_config('application_name', $2, false)",),
    "SHOW": ("select pg_catalog.version()", "show standard_conforming_strings"),
    "SELECT 1": ("SELECT 1",),
    "version()": ("select version();",),
    "current_schema()": ("SELECT * FROM current_schema()",),
    "asyncpg's types": (
        (
            "SELECT t.oid, t.typelem AS elemtype, t.typtype AS kind FROM pg_catalog.pg_type AS t"
            " INNER JOIN pg_catalog.pg_namespace AS ns ON (ns.oid = t.typnamespace)"
            " WHERE t.typname = $1 AND ns.nspname = $2 ORDER BY t.oid DESC"
        ),
    ),
    "ActiveRecord's types": (
        "SET standard_conforming_strings = on",
        "SET SESSION timezone TO 'UTC'",
        "SELECT t.oid, t.typname FROM pg_type as t WHERE t.typname IN ('int2', 'int4', 'int8', 'oid')",
    ),
    "Npgsql's types": (
        (
            "SELECT version();\n\nSELECT ns.nspname, t.oid, t.typname, t.typtype FROM pg_type AS t"
            " JOIN pg_namespace AS ns ON (ns.oid = typnamespace)"
        ),
    ),
    "pgx's types": ("select t.typname, t.typtype, t.typbasetype from pg_type t where t.oid = $1::text::regtype::oid",),
    "hstore": ("SELECT oid, typarray FROM pg_type WHERE typname = 'hstore'",),
}


class Draws:
    """Random values, and what was drawn."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._drawn: list[str] = []

    @property
    def drawn(self) -> str:
        """What was drawn, for a person."""
        return ", ".join(self._drawn)

    def between(self, name: str, least: float, most: float) -> float:
        """Draw a number of a range of less than a magnitude."""
        return self._note(name, float(f"{self.random.uniform(least, most):.3g}"))

    def magnitude(self, name: str, least: float, most: float) -> float:
        """Draw a number of which no magnitude is preferred."""
        return self._note(name, float(f"{math.exp(self.random.uniform(math.log(least), math.log(most))):.3g}"))

    def whole(self, name: str, least: int, most: int) -> int:
        """Draw a whole number."""
        return self._note(name, self.random.randint(least, most))

    def happens(self, name: str, chance: float) -> bool:
        """Draw whether something happens."""
        return self._note(name, self.random.random() < chance)

    def one_of(self, name: str, options: Mapping[str, T]) -> T:
        """Draw one of the named options."""
        chosen = self.random.choice(list(options))
        self._note(name, chosen)
        return options[chosen]

    def _note(self, name: str, value: T) -> T:
        self._drawn.append(f"{name} {value}")
        return value


def draw_setup(draws: Draws) -> tuple[str, ...]:
    """Draw what is sent when a connection is opened."""
    return draws.one_of("set-up", SETUPS)


def pool_with_reset(draws: Draws, most: int) -> Pool:
    """Draw a pool whose idle sessions show that they were returned."""
    pools = {
        "QueuePool, psycopg": sqlalchemy(most // 3 + 1, most - most // 3 - 1),
        "QueuePool, asyncpg": sqlalchemy(most // 3 + 1, most - most // 3 - 1, driver="asyncpg"),
        "asyncpg.Pool": asyncpg_pool(min(10, most), most),
        "asyncpg.Pool, idle ones closed": asyncpg_pool(min(5, most), most, idle=300),
        "psycopg_pool": psycopg_pool(min(4, most), most),
    }
    return draws.one_of("pool", pools)


def pool_without_reset(draws: Draws, most: int) -> Pool:
    """Draw a pool whose idle sessions show the application's statement: any order, time-outs and minimum."""
    pool = draws.one_of(
        "pool",
        {
            "pgx": pgx(most),
            "node-postgres": node_postgres(most),
            "database/sql": database_sql(most, idle=max(2, most // 2)),
            "HikariCP": hikari(most),
            "AUTOCOMMIT": autocommit(most // 2, most - most // 2),
            "Django": replace(django(most), picks_any=True),
        },
    )
    if draws.happens("own settings", 0.7):
        order = draws.one_of(
            "order", {"last in first out": (True, False), "first in first out": (False, False), "any": (False, True)}
        )
        pool = replace(
            pool,
            last_in_first_out=order[0],
            picks_any=order[1],
            idle_timeout=draws.one_of("idle time-out", {"none": None, "30 s": 30.0, "5 min": 300.0, "30 min": 1800.0}),
            lifetime=draws.one_of("lifetime", {"none": None, "5 min": 300.0, "20 min": 1200.0, "1 h": 3600.0}),
            least=draws.whole("minimum", 0, most // 2),
        )
    return replace(pool, setup=draw_setup(draws))


def draw_traffic(draws: Draws, *, minutes: float, least: float = 0.2, most: float = 12.0) -> Rate:
    """Draw requests per second over the time of a story: steady, rising, falling, in bursts, or shaped like a day."""
    seconds, busy = minutes * 60, draws.magnitude("requests/s", 2 * least, most)
    quiet = max(least, busy * draws.between("quiet part", 0.01, 0.3))
    turn = draws.between("turn", 0.2, 0.6) * seconds
    burst = draws.magnitude("burst s", 20, 400)
    shapes: dict[str, Rate] = {
        "steady": steady(busy),
        "rising": lambda time: quiet + (busy - quiet) * min(1.0, time / seconds),
        "falling": lambda time: busy - (busy - quiet) * min(1.0, time / turn),
        "step up": changing((0, quiet), (turn, busy)),
        "step down": changing((0, busy), (turn, quiet)),
        "peak": changing((0, quiet), (turn, busy), (turn + 2 * burst, quiet)),
        "bursts": lambda time: busy if time % (4 * burst) < burst else quiet,
        "day": lambda time: quiet + (busy - quiet) * (0.5 - 0.5 * math.cos(2 * math.pi * time / seconds)),
        "peak, then silence": changing((0, quiet), (turn, busy), (turn + 2 * burst, 0.0)),
    }
    return draws.one_of("traffic", shapes)
