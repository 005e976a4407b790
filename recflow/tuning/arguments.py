"""What a study is given, on the command line, in files or from Python: its own, the search space's, and the fit's."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from recflow.errors import RecflowError
from recflow.tuning.settings import as_json

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass
class Arguments:
    """What ``recflow tune`` was given, in files and on the command line."""

    name: str | None = None
    trials: int | None = None
    timeout: float | None = None
    jobs: int = 1
    sampler: str = "tpe"
    pruner: str | None = None
    objective: list[str] | None = None
    storage: str | None = None
    keep_checkpoints: bool = False
    resume: str | None = None
    runs_dir: str = "runs"
    search: dict[str, Any] = field(default_factory=dict)
    fit: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)


_OWN = {each.name for each in fields(Arguments)} - {"fit", "given", "search"}
_MAY_CHANGE = {"resume", "trials", "timeout", "jobs", "storage", "runs_dir"}


def read_arguments(argv: Sequence[str]) -> Arguments:
    """Read the command line and the files that it names.

    Raises:
        RecflowError: If something given cannot be used.
    """
    _check_option_names(argv)
    found = Arguments()
    own: list[tuple[str, Any]] = []
    pairs = _Pairs(argv)
    for option, take in pairs:
        if option in ("config", "c"):
            own += _of_file(Path(take()), found)
        elif option == "keep_checkpoints":
            value = pairs.value_if_any()
            own.append((option, True if value is None else _yaml(value, option)))
        elif option == "objective":
            before = [value for name, value in own if name == option and isinstance(value, list)]  # said twice: both
            own.append((option, [*(before[-1] if before else []), *pairs.several()]))
        elif option == "search" or option.startswith("search."):
            own.append((option, _yaml(take(), option)))
        elif option in _OWN:
            own.append((option, take()))
        else:
            found.fit += pairs.raw()
    for option, value in own:
        _set(found, option, value)
    if found.resume is not None:
        wrong = [name for name in found.given if name not in _MAY_CHANGE] + [
            arg for arg in found.fit if arg.startswith("--")
        ]
        if wrong:
            raise RecflowError(
                f"A resumed study keeps what it is about; only --trials, --timeout, --jobs, --storage may be given, "
                f"got {', '.join(each if each.startswith('--') else f'--{each}' for each in wrong)}."
            )
    else:
        found.fit.append(f"--runs_dir={found.runs_dir}")
    return found


def seconds(text: Any) -> float:
    """A duration such as ``30m``, ``1h30m`` or ``90`` seconds.

    >>> seconds("30m"), seconds("1h30m"), seconds(90)
    (1800.0, 5400.0, 90.0)
    """
    given = str(text).strip().replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", given)
    if re.fullmatch(r"\d+(\.\d+)?", given):
        total = float(given)
    elif parts and "".join(number + unit for number, unit in parts) == given:
        total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    else:
        raise RecflowError(f"--timeout expects a duration such as 90s, 30m or 1h30m, got {text!r}.")
    if total <= 0:
        raise RecflowError(f"--timeout must be above 0, got {text!r}.")
    return total


class _Pairs:
    """Goes through a command line, option by option."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv, self._at, self._inline = list(argv), 0, ""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        while self._at < len(self._argv):
            word = self._argv[self._at]
            name, equals, self._inline = word.partition("=")
            self._has_inline = bool(equals)
            self._word, self._start = name, self._at
            self._at += 1
            option = name.lstrip("-")
            known = option.replace("-", "_")
            yield (known if known in {*_OWN, "config", "c"} else option) if name.startswith("-") else "", self.value

    def value(self) -> str:
        """The option's one value."""
        found = self.value_if_any()
        if found is None:
            raise RecflowError(f"{self._word} expects a value; see recflow tune --help")
        return found

    def value_if_any(self) -> str | None:
        """Its value, if one follows."""
        if self._has_inline:
            return self._inline
        if self._at < len(self._argv) and not re.match(r"--?[a-zA-Z]", self._argv[self._at]):
            self._at += 1
            return self._argv[self._at - 1]
        return None

    def several(self) -> list[str]:
        """All values that follow."""
        found = []
        while (value := self.value_if_any()) is not None:
            found += value.split(",")
            if self._has_inline:
                break
        if not found:
            raise RecflowError(f"{self._word} expects one validation metric or more, such as val/ndcg@10.")
        return found

    def raw(self) -> list[str]:
        """The option as it stands: it is the fit's."""
        return [self._argv[self._start]]


def _of_file(path: Path, found: Arguments) -> list[tuple[str, Any]]:
    """A YAML file's part that is ours; the rest is handed to the fit, as a file would be."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecflowError(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecflowError(f"The configuration file {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecflowError(f"The configuration file {path} holds no settings, but {content!r}.")
    ours = [(name, content.pop(name)) for name in list(content) if name in {*_OWN, "search"}]
    plugin = content.pop("plugin", None)
    found.fit.append(f"--config={as_json(content, f'The configuration file {path}')}")
    if plugin is not None:
        found.fit.append(f"--plugin={plugin}")
    return [(name, value) for name, value in ours if value is not None]


def _set(found: Arguments, option: str, value: Any) -> None:
    found.given.append(option)
    if option == "search":
        if not isinstance(value, Mapping):
            raise RecflowError(f"search expects distributions by key, got {value!r}.")
        for key, change in value.items():
            _change(found.search, str(key), change)
    elif option.startswith("search."):
        key, _, last = option.removeprefix("search.").rpartition(".")
        if key and last in ("low", "high", "log", "step", "choices"):
            _change(found.search, key, {last: value})
        else:
            _change(found.search, option.removeprefix("search."), value)
    elif option == "trials":
        found.trials = _whole(option, value)
    elif option == "jobs":
        found.jobs = _whole(option, value)
    elif option == "timeout":
        found.timeout = seconds(value)
    elif option == "objective":
        if not isinstance(value, str | list) or not value:
            raise RecflowError(f"objective expects one validation metric or more, such as val/ndcg@10, got {value!r}.")
        found.objective = [value] if isinstance(value, str) else [str(each) for each in value]
    elif option == "keep_checkpoints":
        if not isinstance(value, bool):
            raise RecflowError(f"--keep-checkpoints expects true or false, got {value!r}.")
        found.keep_checkpoints = value
    else:
        setattr(found, option, str(value))


def _change(search: dict[str, Any], key: str, change: Any) -> None:
    """What is said later of the same key counts; fields are said one by one."""
    before = search.get(key)
    search[key] = {**before, **change} if isinstance(before, dict) and isinstance(change, dict) else change


def _whole(option: str, value: Any) -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise RecflowError(f"--{option} expects a whole number, got {value!r}.") from None
    if number < 1:
        raise RecflowError(f"--{option} must be at least 1, got {number}.")
    return number


def _yaml(text: str, option: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecflowError(f"--{option} expects YAML, got {text!r}: {' '.join(str(error).split())}") from error


def _check_option_names(argv: Sequence[str]) -> None:
    """Refuse a misspelt option of our own before the fit's parser calls it one of its."""
    fits = {
        "plugin",
        "data",
        "seed",
        "monitor",
        "patience",
        "threads",
        "loggers",
        "init-from",
        "init_from",
        "optimizer",
    }
    known = {name.replace("_", "-") for name in _OWN} | {"config", "search"} | fits
    for arg in argv:
        option = re.match(r"--([a-z_-]+)(=|$)", arg)
        if option and option[1] not in known and option[1].replace("_", "-") not in known:
            close = difflib.get_close_matches(option[1], known, n=1)
            if close:
                raise RecflowError(f"There is no option --{option[1]}; did you mean --{close[0]}?")
