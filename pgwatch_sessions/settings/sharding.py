"""Shares the servers among several daemons that have the same configuration."""

import hashlib
import re
import socket
from dataclasses import dataclass
from typing import Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_SHARD = re.compile(r"(?:(?P<number>\d{1,4})|ordinal)/(?P<of>\d{1,4})", re.ASCII)
#: A StatefulSet's pods are named NAME-0, NAME-1 and so on.
_ORDINAL = re.compile(r".*-(\d{1,4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal shares of the servers. `written` is the text that it was read from."""

    number: int
    of: int
    written: str

    def __str__(self) -> str:
        return self.written

    @classmethod
    def read(cls, value: object) -> Self:
        """Parse `2/5`, or `ordinal/5`, whose number is the pod's ordinal plus one."""
        match = _SHARD.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError("must be NUMBER/OF such as 2/5, or ordinal/5 for the pods of a StatefulSet")
        number, of = int(match["number"] or _ordinal() + 1), int(match["of"])
        if not 1 <= number <= of:
            raise ValueError(f"must be from 1/{of} to {of}/{of}, not {number}/{of}" if of else "must not be of 0")
        return cls(number, of, match[0])

    def has(self, server: str) -> bool:
        """Return whether the server belongs to this shard.

        Each server goes to the shard with the highest hash of both (rendezvous hashing). If the number of shards grows
        from 4 to 5, a fifth of the servers moves, all of them to the fifth shard.
        """
        return self.number == max(range(1, self.of + 1), key=lambda number: _weight(number, server))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def _ordinal() -> int:
    host = socket.gethostname()
    match = _ORDINAL.fullmatch(host)
    if match is None:
        raise ValueError(f"ordinal needs a host name that ends in a number, such as pgwatch-sessions-0, not {host}")
    return int(match[1])


def _weight(number: int, server: str) -> bytes:
    return hashlib.blake2b(f"{number} {server}".encode(), digest_size=8).digest()
