"""ZephyrError: the one exception that is shown to users, without a traceback.

`ZephyrError` is raised for wrong input and for failures of the environment (a missing file, a full
disk). The command line prints it without a traceback and exits with code 2. A bug of our own code
is an `assert`, and shows its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class ZephyrError(Exception):
    """A user-facing error in parts: the problem, where, found, allowed, nearest match, to do.

    Each part but the first may be left out. The text of the exception holds one line per part.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        found: object = None,
        allowed: str | Iterable[str] | None = None,
        nearest: str | None = None,
        todo: str | None = None,
    ) -> None:
        if allowed is not None and not isinstance(allowed, str):
            allowed = ", ".join(allowed)
        parts = (
            ("where", where),
            ("found", None if found is None else str(found)),
            ("allowed", allowed),
            ("nearest", nearest),
            ("to do", todo),
        )
        lines = [problem, *(f"  {label + ':':9}{text}" for label, text in parts if text)]
        super().__init__("\n".join(lines))
        self.problem = problem


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """The closest match of `name` among `names`, or None if none is close."""
    matches = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown_name_error(
    what: str, name: str, names: Iterable[str], *, where: str | None = None, todo: str | None = None
) -> ZephyrError:
    """Makes the error for a name that is not among `names`."""
    known = sorted(names)
    return ZephyrError(
        f"unknown {what} {name!r}",
        where=where,
        allowed=known or "(none)",
        nearest=closest_name(name, known),
        todo=todo,
    )
