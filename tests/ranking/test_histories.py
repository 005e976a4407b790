import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.ranking.histories import Histories

NUM_USERS, NUM_ITEMS = 5, 6
pairs_and_stars = st.lists(
    st.tuples(st.integers(0, NUM_USERS - 1), st.integers(0, NUM_ITEMS - 1), st.integers(1, 5)), max_size=40
)


def build(rows, ratings: bool = True) -> Histories:
    users, items, stars = (torch.tensor([row[column] for row in rows], dtype=torch.int64) for column in range(3))
    return Histories.from_pairs(users, items, NUM_USERS, NUM_ITEMS, stars.float() if ratings else None)


def by_hand(rows) -> list[dict[int, int]]:
    """Per user, item → stars; of repeated pairs the first is kept."""
    known = [{} for _ in range(NUM_USERS)]
    for user, item, stars in rows:
        known[user].setdefault(item, stars)
    return [dict(sorted(row.items())) for row in known]


@settings(max_examples=200, deadline=None)
@given(pairs_and_stars)
def test_each_user_has_the_items_and_stars_that_a_loop_finds(rows):
    histories = build(rows)
    assert histories.num_users == NUM_USERS
    assert histories.indptr.dtype == histories.items.dtype == torch.int64
    for user, expected in enumerate(by_hand(rows)):
        items, stars = histories.of(user)
        assert items.tolist() == list(expected)
        if stars is not None:
            assert stars.tolist() == list(expected.values())
        assert stars is not None or not rows


@settings(max_examples=200, deadline=None)
@given(pairs_and_stars, st.lists(st.integers(0, NUM_USERS - 1), max_size=8))
def test_the_rows_of_some_users_are_what_a_loop_finds(rows, users):
    histories, known = build(rows), by_hand(rows)
    asked = torch.tensor(users, dtype=torch.int64)
    position, item = histories.rows(asked)
    expected = [(place, item) for place, user in enumerate(users) for item in known[user]]
    assert list(zip(position.tolist(), item.tolist(), strict=True)) == expected
    _, place = histories.places(asked)
    assert histories.ratings[place].tolist() == [stars for user in users for stars in known[user].values()]


def test_without_ratings_there_are_none():
    histories = build([(1, 2, 5), (1, 0, 3)], ratings=False)
    items, stars = histories.of(1)
    assert (items.tolist(), stars) == ([0, 2], None)


def test_nobody_has_any():
    histories = build([])
    assert histories.indptr.tolist() == [0] * (NUM_USERS + 1)
    assert [part.tolist() for part in histories.rows(torch.arange(NUM_USERS))] == [[], []]
    assert histories.of(4)[0].tolist() == []


def test_a_user_who_is_not_there_is_an_error():
    with pytest.raises(IndexError):
        build([(0, 0, 1)]).of(NUM_USERS)


def test_moving_keeps_all():
    histories = build([(0, 3, 2), (4, 1, 5)])
    assert all(torch.equal(a, b) for a, b in zip(histories.to("cpu"), histories, strict=True))
