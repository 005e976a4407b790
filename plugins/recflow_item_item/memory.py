"""What does not fit into memory is refused before it is begun."""

from __future__ import annotations

import os

from recflow.errors import RecflowError


def refuse_beyond_memory(what: str, needed: int, instead: str) -> None:
    """Refuse what would need more memory than this machine has.

    Args:
        what: Model and size, as the message's subject.
        needed: Bytes at the peak.
        instead: What to do about it.

    Raises:
        RecflowError: If it does not fit.
    """
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise RecflowError(
            f"{what} needs about {needed / 2**30:,.0f} GiB of memory, this machine has {there / 2**30:.0f}: {instead}."
        )
