"""Files that are written whole or not at all: beside their place first, then renamed into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, in the same folder and with the same suffix, which becomes the file when the block ends.

    Whatever stood there stays as it was if the block fails.
    """
    scratch = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write text in UTF-8."""
    with replacing(path) as scratch:
        scratch.write_text(content, encoding="utf-8")
