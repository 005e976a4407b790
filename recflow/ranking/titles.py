"""Titles as you type: every word of what was typed begins a word of the title."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable

import torch
from torch import Tensor

from recflow.ranking.catalog import Catalog, title_key

_LETTERS = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "'": None, "’": None}
)
_WORD = re.compile(r"[^\W_]+")
_LAST = "\U0010ffff"


class TitleIndex:
    """Finds items by the beginnings of their titles' words; accents, case and punctuation do not matter.

    Words stand in alphabetical order, so a beginning is one stretch of them, and a stretch of postings. Titles that
    begin with what was typed come first; of these, and of the others, the popular ones.

    Args:
        catalog: Whose titles are indexed, once: a third of a second for 60,000.
    """

    def __init__(self, catalog: Catalog) -> None:
        rows = catalog.titles()  # most popular first: an item's place here is its rank
        self.items = torch.tensor([item for item, _ in rows], dtype=torch.int64)
        postings: dict[str, list[int]] = {}
        starts = []
        for rank, (_, title) in enumerate(rows):
            words = fold(title_key(title))
            starts.append((" ".join(words), rank))
            for word in {*words}:
                postings.setdefault(word, []).append(rank)
        self._words = sorted(postings)
        counts = [len(postings[word]) for word in self._words]
        self._ends = torch.tensor([0, *counts]).cumsum(0).tolist()
        self._ranks = torch.tensor([rank for word in self._words for rank in postings[word]], dtype=torch.int64)
        starts.sort()
        self._starts = [start for start, _ in starts]
        self._start_ranks = torch.tensor([rank for _, rank in starts], dtype=torch.int64)

    def search(self, typed: str, k: int = 10) -> list[int]:
        """The items that fit best.

        Args:
            typed: Some words, of which any may be unfinished.
            k: At most so many.

        Returns:
            Item indices, best first; none if nothing fits, or there is no letter or digit in what was typed.
        """
        words = fold(typed)
        if not words:
            return []
        fits = self._mask(self._ranks[self._stretch(word)] for word in words)
        opening = " ".join(words)
        low, high = bisect_left(self._starts, opening), bisect_left(self._starts, opening + _LAST)
        first = torch.sort(self._start_ranks[low:high]).values[:k]
        fits[first] = False
        rest = fits.nonzero().flatten()[: k - len(first)]
        found: list[int] = self.items[torch.cat([first, rest])].tolist()
        return found

    def _stretch(self, word: str) -> slice:
        low, high = bisect_left(self._words, word), bisect_left(self._words, word + _LAST)
        return slice(self._ends[low], self._ends[high])

    def _mask(self, found: Iterable[Tensor]) -> Tensor:
        fits = torch.ones(len(self.items), dtype=torch.bool)
        for ranks in found:
            fits &= torch.zeros_like(fits).index_fill_(0, ranks, True)
        return fits


def fold(text: str) -> list[str]:
    """A text's words without what people leave out when they type.

    >>> fold("Amélie (2001)"), fold("Ezra's WALL·E")
    (['amelie', '2001'], ['ezras', 'wall', 'e'])
    """
    plain = text.casefold().translate(_LETTERS)
    if not plain.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return _WORD.findall(plain)
