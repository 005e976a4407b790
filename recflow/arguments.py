"""What commands that take settings share: how data are named, and how a parser's complaint becomes one line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path


def data_argument(value: str) -> str:
    """The setting that is meant by what stands after ``--data``: a file or folder of one's own, or a name.

    >>> data_argument("ml-1m"), data_argument("my.csv"), data_argument("./ml-1m")
    ('name', 'path', 'path')
    """
    is_path = "/" in value or os.sep in value or bool(Path(value).suffix) or Path(value).is_file()
    return "path" if is_path else "name"


def one_line(message: str, known: Sequence[str]) -> str:
    """A parser's message without Python's words, and with help for a misspelt key.

    Args:
        message: What jsonargparse says.
        known: All keys.
    """
    text = " ".join(message.split())
    union = re.search(
        r'^Parser key "([^"]+)": Does not validate against any of the Union subtypes.*? '
        r"Errors: - (.*?)(?: - Expected a <class 'NoneType'>)?\.? Given value type: .*? Given value: (.*)$",
        text,
    )
    if union:
        text = f'Parser key "{union[1]}": {union[2]}. Got value: {union[3]}'
    text = re.sub(r'^Parser key "([^"]+)":', r"\1:", text)
    text = re.sub(r"Expected an? <class '(\w+)'>", r"expected \1", text)
    text = re.sub(r"Expected a typing\.Literal\[([^\]]+)\]", r"expected one of \1", text)
    text = re.sub(r"\. Got value: (.*)$", r", got \1", text)
    for word in re.findall(r"[\w]+(?:\.[\w]+)+|(?<=--)\w+", text):
        close = [key for key in known if key.endswith(f".{word}")] or difflib.get_close_matches(word, known, n=1)
        if word not in known and close:
            return f"{text}; did you mean --{close[0]}?"
    return text
