"""What a list may be narrowed down by: years and genres of all items, ready to become a mask."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking.catalog import Catalog, Id

_NO_YEAR = -(2**31)


@dataclass(frozen=True)
class Wishes:
    """What a list is to be like. Filters are applied before the best are chosen, so none of the k places is lost.

    Attributes:
        genres: Items of any of these; of all genres if empty. Case does not matter.
        exclude_genres: Items of none of these.
        year_from: The first year; an item whose year is unknown is left out once either bound is given.
        year_to: The last year.
        exclude: Items to leave out, by id or title.
        diversity: 0 ranks by score alone; up to 1, which chooses each item to be as unlike those above it as can be.
    """

    genres: Sequence[str] = ()
    exclude_genres: Sequence[str] = ()
    year_from: int | None = None
    year_to: int | None = None
    exclude: Sequence[Id] = ()
    diversity: float = 0.0


ANYTHING = Wishes()


class ItemFacts:
    """Years and genres of a catalogue's items, as tensors.

    Args:
        catalog: Of which they are read, once.
    """

    def __init__(self, catalog: Catalog) -> None:
        years, members = [], dict[str, list[int]]()
        for item, (year, genres) in enumerate(catalog.years_and_genres()):
            years.append(_NO_YEAR if year is None else min(max(year, -(2**31) + 1), 2**31 - 1))
            for genre in genres:
                members.setdefault(genre, []).append(item)
        self.num_items = len(years)
        self.years = torch.tensor(years, dtype=torch.int32)
        self.items_of = {genre: torch.tensor(items) for genre, items in sorted(members.items())}
        self._names = {genre.casefold(): genre for genre in self.items_of}

    @property
    def genres(self) -> list[str]:
        """Every genre that an item has, in alphabetical order."""
        return list(self.items_of)

    @property
    def year_range(self) -> tuple[int, int] | None:
        """The first and last year; None where no item has one."""
        known = self.years[self.years != _NO_YEAR]
        return (int(known.min()), int(known.max())) if len(known) else None

    def allowed(self, wishes: Wishes, exclude: Tensor) -> Tensor | None:
        """Which items fit.

        Args:
            wishes: Filters.
            exclude: Indices of the items to leave out, int64.

        Returns:
            Bool, shape ``[num_items]``; None where everything does.

        Raises:
            RecflowError: If no item has one of the genres.
        """
        if wishes.year_from is None and wishes.year_to is None and not (wishes.genres or wishes.exclude_genres):
            return (
                None if len(exclude) == 0 else torch.ones(self.num_items, dtype=torch.bool).index_fill_(0, exclude, 0)
            )
        fits = self._having(wishes.genres) if wishes.genres else torch.ones(self.num_items, dtype=torch.bool)
        if wishes.exclude_genres:
            fits &= ~self._having(wishes.exclude_genres)
        if wishes.year_from is not None or wishes.year_to is not None:
            fits &= self.years != _NO_YEAR
        if wishes.year_from is not None:
            fits &= self.years >= wishes.year_from
        if wishes.year_to is not None:
            fits &= self.years <= wishes.year_to
        return fits.index_fill_(0, exclude, 0)

    def genre(self, text: str) -> str:
        """A genre as the data writes it.

        Raises:
            RecflowError: If no item has it.
        """
        name = self._names.get(text.casefold())
        if name is None:
            raise RecflowError(f"There is no genre {text!r} in this run's data; {self._hint(text)}")
        return name

    def genre_vectors(self, items: Tensor) -> Tensor:
        """A 1 for each genre that some items have, float32, shape ``[items, genres]``."""
        rows = torch.zeros(len(items), len(self.items_of))
        for column, members in enumerate(self.items_of.values()):
            rows[:, column] = torch.isin(items, members).float()
        return rows

    def _having(self, genres: Iterable[str]) -> Tensor:
        has = torch.zeros(self.num_items, dtype=torch.bool)
        for genre in genres:
            has[self.items_of[self.genre(genre)]] = True
        return has

    def _hint(self, genre: str) -> str:
        if not self._names:
            return "its items have none."
        close = difflib.get_close_matches(genre.casefold(), self._names, n=1)
        return f"did you mean {self._names[close[0]]!r}?" if close else f"there are {', '.join(self.genres[:30])}."
