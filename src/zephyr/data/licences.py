"""License (licence) warnings: what the license of a source forbids, or may forbid, in training.

This is no legal advice: the data set card of the source is authoritative.
"""

import re

from zephyr.data.table import RegisteredSource

_WARNING_BY_PATTERN = {
    r"\bNC\b": "commercial use is not allowed",
    r"\bSA\b|\bGFDL\b": "what is made of it may only be passed on under the same licence",
    r"\bND\b": "no changed copy of it may be passed on",
    r"not stated|unspecified|unknown|^none": "no licence is known, so no permission is",
    r"\bterms\b|\bResearch\b": "it has terms of its own, which may forbid training on it",
    r"\bmixed\b": "its rows have different licences, some of which may forbid commercial use",
    r"\bagreed to\b": "pass on what is made of it only as far as those who voted agreed to",
    r"\binternal\b": "it must not be passed on, nor anything that quotes it",
}


def licence_warnings(source: RegisteredSource) -> tuple[str, ...]:
    """The license warnings of a source, a sentence each; none for a plain open license."""
    warnings = [
        sentence
        for sign, sentence in _WARNING_BY_PATTERN.items()
        if re.search(sign, source.licence)
    ]
    if source.gated and source.hub is not None:
        warnings.append(f"everybody has to accept its terms at {source.hub.card_url}")
    return tuple(warnings)
