"""Limits that the configuration sets for holds at certain sites, in place of `hold_limit` and of what was learned."""

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredLimit:
    """How long holds of an application at a site may last. Both are shell patterns; None matches all."""

    application: str | None = None
    site: str | None = None
    #: In seconds.
    limit: float

    def applies_to(self, application: str, site: str) -> bool:
        """Return whether this is the limit of the application's holds at the site."""
        return (self.application is None or fnmatchcase(application, self.application)) and (
            self.site is None or fnmatchcase(site, self.site)
        )
