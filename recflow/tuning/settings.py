"""Settings as YAML reads them, of which only those that JSON knows can be handed on and kept."""

from __future__ import annotations

import json
from typing import Any

from recflow.errors import RecflowError


def as_json(value: Any, where: str) -> str:
    """A setting as JSON text.

    Args:
        value: What YAML made of it.
        where: What holds it, for the message.

    Raises:
        RecflowError: If it holds a date, or anything else that is no number, text, list or mapping.
    """

    def refuse(odd: object) -> None:
        raise RecflowError(
            f"{where} holds {str(odd)!r}, which YAML reads as a {type(odd).__name__}: write it in quotes if it is text."
        )

    try:
        return json.dumps(value, default=refuse)
    except (TypeError, ValueError) as error:  # a mapping's key that is none, or a mapping that holds itself
        raise RecflowError(f"{where} holds what is no setting: {error}.") from error
