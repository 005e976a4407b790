"""The models that a service has loaded, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recflow.errors import RecflowError

if TYPE_CHECKING:  # torch comes in with the model, in a worker: `bentoml build` and `import service` go without
    from recflow.ranking.recommender import Recommender

WITHOUT_HISTORIES = (
    "This model was packaged without histories: what a user of the data has seen is not known and may be recommended."
)


class UnknownModelError(RecflowError):
    """A model that is not served."""


@dataclass(frozen=True)
class Served:
    """One model.

    Attributes:
        name: What ``model=`` calls it.
        recommender: What answers.
    """

    name: str
    recommender: Recommender

    @property
    def about(self) -> dict[str, Any]:
        """Plugin, task, data, metrics and the like."""
        return self.recommender.about

    @property
    def has_histories(self) -> bool:
        """Whether it is known what the users of the data have seen."""
        return self.recommender.bundle.histories is not None

    def source(self) -> dict[str, str]:
        """What every answer says of where it comes from."""
        return {"model": self.name, "data": str(self.about["header"]["dataset"])}


class Models:
    """Several models side by side; the first is the default.

    Args:
        served: At least one, of different names.
    """

    def __init__(self, served: Sequence[Served]) -> None:
        self._by_name = {one.name: one for one in served}
        self.default = served[0]

    def __iter__(self) -> Iterator[Served]:
        return iter(self._by_name.values())

    @classmethod
    def load(cls, folders: Sequence[Path]) -> Models:
        """Read bundles; each is named by its plugin or, where two are of one plugin, by plugin and folder as well.

        Raises:
            RecflowError: If one cannot be used.
        """
        from recflow.ranking.recommender import Recommender

        recommenders = [Recommender.load(folder) for folder in folders]
        names = distinct_names([str(one.about["plugin"]) for one in recommenders], folders)
        return cls([Served(name, one) for name, one in zip(names, recommenders, strict=True)])

    def get(self, name: str | None) -> Served:
        """A model by name; the default one if None.

        Raises:
            UnknownModelError: If none is called so.
        """
        if name is None:
            return self.default
        if name not in self._by_name:
            raise UnknownModelError(f"There is no model {name!r}; served are: {', '.join(self._by_name)}.")
        return self._by_name[name]


def distinct_names(plugins: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """What several models are called.

    >>> distinct_names(["ease", "lightgcn", "ease"], [Path("a/bundle"), Path("b"), Path("c/bundle")])
    ['ease@a', 'lightgcn', 'ease@c']
    """
    many = Counter(plugins)
    parents = [(folder.parent if folder.name == "bundle" else folder).name for folder in folders]
    names = [
        f"{plugin}@{parent}" if many[plugin] > 1 else plugin for plugin, parent in zip(plugins, parents, strict=True)
    ]
    twice = Counter(names)
    return [f"{name}-{place}" if twice[name] > 1 else name for place, name in enumerate(names, 1)]
