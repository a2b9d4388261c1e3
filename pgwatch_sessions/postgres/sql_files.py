"""The statements that we send."""

from importlib import resources


def sql(name: str) -> str:
    """Return the text of one of the .sql files."""
    return resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="ascii")
