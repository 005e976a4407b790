"""Search spaces: a plugin's Optuna distributions, and what a file or the command line changes in them."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from recflow.errors import RecflowError
from recflow.tuning.settings import as_json

FIELDS = ("low", "high", "log", "step", "choices")
Space = dict[str, BaseDistribution]
"""Distributions by configuration key, such as ``model.lr``."""


def encode_choices(distribution: BaseDistribution) -> BaseDistribution:
    """A distribution that every storage keeps: lists and mappings among its choices become JSON text.

    >>> encode_choices(CategoricalDistribution([[64, 32], [32]])).choices
    ('json:[64, 32]', 'json:[32]')
    """
    if not isinstance(distribution, CategoricalDistribution):
        return distribution
    return CategoricalDistribution([encode(choice) for choice in distribution.choices])


def encode(choice: Any) -> Any:
    """One choice, as storages keep it."""
    if choice is None or isinstance(choice, bool | int | float | str):
        return choice
    return f"json:{json.dumps(choice)}"


def decode(value: Any) -> Any:
    """What :func:`encode` was given, tuples as lists.

    >>> decode(encode((64, 32)))
    [64, 32]
    """
    return json.loads(value[5:]) if isinstance(value, str) and value.startswith("json:") else value


def change_space(space: Mapping[str, BaseDistribution], changes: Mapping[str, Any], known: Sequence[str]) -> Space:
    """A plugin's space as somebody wants it.

    Args:
        space: The plugin's.
        changes: By key: a list of choices; fields of a distribution (``low``, ``high``, ``log``, ``step``,
            ``choices``), of which those left out stay as they are; one value or null, to leave the key out of the
            search. Keys may be nested mappings, too.
        known: Every key that a fit takes.

    Raises:
        RecflowError: If a key is unknown, or a distribution cannot be.
    """
    changed = {key: encode_choices(distribution) for key, distribution in space.items()}
    for key, change in _by_key(changes):
        _check_key(key, known)
        as_json(change, f"search.{key}")
        if isinstance(change, Mapping):
            changed[key] = encode_choices(_merged(key, changed.get(key), change))
        elif isinstance(change, list):
            changed[key] = encode_choices(_merged(key, None, {"choices": change}))
        else:
            changed.pop(key, None)
    return changed


def fixed_values(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have got one value, and so are not searched.

    >>> fixed_values({"model.lr": 0.01, "model.reg": None, "model.num_layers": [1, 2]})
    {'model.lr': 0.01}
    """
    return {
        key: _number(value)
        for key, value in _by_key(changes)
        if value is not None and not isinstance(value, Mapping | list)
    }


def changed_keys(changes: Mapping[str, Any]) -> list[str]:
    """The keys that changes are about.

    >>> changed_keys({"model": {"lr": {"high": 0.1}, "reg": None}})
    ['model.lr', 'model.reg']
    """
    return [key for key, _ in _by_key(changes)]


def ends(distribution: BaseDistribution) -> list[Any]:
    """All choices, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return [decode(choice) for choice in distribution.choices]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return [distribution.low, distribution.high]


def describe(distribution: BaseDistribution) -> str:
    """A distribution as people write it.

    >>> describe(FloatDistribution(1e-4, 0.1, log=True))
    '0.0001 … 0.1 (log)'
    """
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(str(decode(choice)) for choice in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    coarse = distribution.step if distribution.step not in (None, 1) else None
    step = f", in steps of {coarse:g}" if coarse else ""
    return f"{distribution.low:g} … {distribution.high:g}{' (log)' if distribution.log else ''}{step}"


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value could have been drawn."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def grid_points(space: Space, limit: int = 10_000) -> list[dict[str, Any]]:
    """Every combination, the last key changing first.

    Raises:
        RecflowError: If a key has infinitely many values, or there are more combinations than ``limit``.
    """
    values = {key: _grid_values(key, distribution) for key, distribution in space.items()}
    size = math.prod(len(each) for each in values.values())
    if size > limit:
        counts = " × ".join(f"{len(each)} {key}" for key, each in values.items())
        raise RecflowError(f"The grid has {size:,} points ({counts}), more than {limit:,}: give fewer choices.")
    points: list[dict[str, Any]] = [{}]
    for key, each in values.items():
        points = [{**point, key: value} for point in points for value in each]
    return points


def _by_key(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings by their dotted keys; a mapping of fields is a distribution."""
    for name, value in changes.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and not set(value) & set(FIELDS):
            yield from _by_key(value, f"{key}.")
        else:
            yield key, value


def _check_key(key: str, known: Sequence[str]) -> None:
    if key.startswith("data.") and key != "data.batch_size":
        raise RecflowError(f"search.{key}: the data are prepared once for all trials; of data only batch_size varies.")
    if key.startswith("metrics."):
        raise RecflowError(f"search.{key}: all trials are measured alike; leave it out of the search.")
    if key in ("trainer.devices", "trainer.num_nodes"):
        raise RecflowError(f"search.{key}: a trial is fitted in one process; give --jobs for several trials at once.")
    if key.rpartition(".")[0] in known:
        raise RecflowError(
            f"search.{key}: a distribution has no field {key.rpartition('.')[2]!r}; there are: {', '.join(FIELDS)}."
        )
    if key not in known:
        close = [name for name in known if name.endswith(f".{key}")] or difflib.get_close_matches(key, known, n=3)
        hint = f"did you mean {' or '.join(f'search.{name}' for name in close)}?" if close else "see recflow fit --help"
        raise RecflowError(f"search.{key}: there is no such setting; {hint}")


def _merged(key: str, before: BaseDistribution | None, change: Mapping[str, Any]) -> BaseDistribution:
    unknown = [name for name in change if name not in FIELDS]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), FIELDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(FIELDS)}."
        raise RecflowError(f"search.{key}.{unknown[0]}: a distribution has no such field; {hint}")
    if "choices" in change:
        choices = change["choices"]
        if len(change) > 1:
            raise RecflowError(f"search.{key}: choices stand alone, without {', '.join(set(change) - {'choices'})}.")
        if not isinstance(choices, list | tuple) or not choices:
            raise RecflowError(f"search.{key}.choices: expected a list, such as [32, 64], got {choices!r}.")
        return CategoricalDistribution([encode(_number(choice)) for choice in choices])
    fields: dict[str, Any] = {}
    if isinstance(before, FloatDistribution | IntDistribution):
        fields = {"low": before.low, "high": before.high, "log": before.log, "step": before.step}
        if change.get("log"):
            fields["step"] = None  # a logarithmic range has no steps but those of whole numbers
    for name, value in change.items():
        number = _number(value)
        fine = isinstance(number, bool) if name == "log" else isinstance(number, int | float)
        if (not fine and not (name == "step" and number is None)) or (name != "log" and isinstance(number, bool)):
            expected = "true or false" if name == "log" else "a number"
            raise RecflowError(f"search.{key}.{name}: expected {expected}, got {value!r}.")
        fields[name] = number
    missing = [name for name in ("low", "high") if name not in fields]
    if missing:
        raise RecflowError(f"search.{key}: a range needs low and high, got no {' and no '.join(missing)}.")
    return _range(key, fields, whole=isinstance(before, IntDistribution) or before is None)


def _range(key: str, fields: dict[str, Any], whole: bool) -> BaseDistribution:
    low, high, log, step = (fields.get(name) for name in ("low", "high", "log", "step"))
    if not (math.isfinite(float(low or 0)) and math.isfinite(float(high or 0))):
        raise RecflowError(f"search.{key}: low and high must be finite, got {low} and {high}.")
    try:
        if whole and all(isinstance(value, int) for value in (low, high, step or 1)):
            return IntDistribution(int(low or 0), int(high or 0), log=bool(log), step=int(step or 1))
        return FloatDistribution(float(low or 0), float(high or 0), log=bool(log), step=step)
    except ValueError as error:
        given = ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
        raise RecflowError(f"search.{key}: no distribution has {given}: {' '.join(str(error).split())}") from error


def _grid_values(key: str, distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        example = f"--search.{key} '[{distribution.low:g}, {distribution.high:g}]'"
        raise RecflowError(f"A grid over {key} would be infinite ({describe(distribution)}): give points, {example}.")
    count = int((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
    if isinstance(distribution, IntDistribution):
        if distribution.log:
            return _doublings(distribution.low, distribution.high)
        return [distribution.low + step * distribution.step for step in range(count)]
    return [distribution.low + step * distribution.step for step in range(count)]


def _doublings(low: int, high: int) -> list[int]:
    """The points of a logarithmic range of whole numbers."""
    points = [low]
    while points[-1] * 2 < high:
        points.append(points[-1] * 2)
    return points if points[-1] == high else [*points, high]


def _number(value: Any) -> Any:
    """YAML 1.1 takes ``1e-4`` for text, since it has no point."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value
