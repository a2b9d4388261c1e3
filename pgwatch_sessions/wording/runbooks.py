"""Where the runbooks are: at a running daemon, and on the project's site."""

#: Where the daemon serves the list of runbooks, and each runbook below it.
SERVED = "/runbooks/"
#: The files of the project, for links to a file that the daemon does not serve.
PROJECT = "https://github.com/pgwatch-sessions/pgwatch-sessions/blob/main/"


def published(runbook: str) -> str:
    """Return the address on the project's site of a runbook, given as `/runbooks/NAME#anchor`."""
    name, hash_sign, anchor = runbook.removeprefix(SERVED).partition("#")
    return f"{PROJECT}alerts/runbooks/{name}.md{hash_sign}{anchor}"
