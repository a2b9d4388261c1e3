"""The address of the web server."""

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host and a port to listen on."""

    #: Host name or IP address without brackets. Empty means all interfaces.
    host: str
    #: 0 lets the system choose a port.
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def read(cls, value: object) -> Self:
        """Parse `host:port`, `[::1]:9488` or `:9488`."""
        host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if not colon or not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise ValueError("must be an address such as 127.0.0.1:9488, [::1]:9488 or :9488")
        if host.startswith("[") and host.endswith("]"):
            host = str(IPv6Address(host[1:-1]))
        elif any(character in "[]:/@" or character.isspace() for character in host):
            raise ValueError("must be host:port, with an IPv6 address in brackets: [::1]:9488")
        return cls(host=host, port=int(port))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema  # noqa: PLC0415  # the health check reads addresses without pydantic

        return core_schema.no_info_plain_validator_function(
            cls.read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


DEFAULT_LISTEN = Address(host="127.0.0.1", port=9488)
