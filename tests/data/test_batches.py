from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from recflow.data.batches import BPRBatches, NegativeSampler, RatingBatches, epoch_generator
from recflow.errors import RecflowError

NUM_USERS, NUM_ITEMS, BATCH = 13, 19, 16


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(NUM_USERS, NUM_ITEMS, generator=generator) < 0.4
    x[3] = True
    x[3, 11] = False  # all but one item
    users, items = x.nonzero(as_tuple=True)
    ratings = torch.randint(1, 6, (len(users),), generator=generator).float()
    return users, items, ratings


def bpr(rows, seed=0, epoch=0, batch_size=BATCH) -> BPRBatches:
    users, items, _ = rows
    batches = BPRBatches(users, items, NegativeSampler(users, items, NUM_ITEMS), batch_size, seed)
    batches.set_epoch(epoch)
    return batches


def ratings(rows, seed=0, epoch=0, batch_size=BATCH) -> RatingBatches:
    batches = RatingBatches(*rows, batch_size, seed)
    batches.set_epoch(epoch)
    return batches


def flat(batches) -> list[torch.Tensor]:
    return [torch.cat(column) for column in zip(*batches, strict=True)]


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(flat(first), flat(second), strict=True))


@pytest.mark.parametrize("loader", [bpr, ratings])
class TestEveryLoader:
    def test_every_interaction_comes_exactly_once_an_epoch(self, rows, loader):
        for epoch in range(3):
            users, items, *_ = flat(loader(rows, epoch=epoch))
            came = Counter(zip(users.tolist(), items.tolist(), strict=True))
            assert came == Counter(zip(rows[0].tolist(), rows[1].tolist(), strict=True))

    def test_same_seed_and_epoch_give_the_same_batches(self, rows, loader):
        assert same(loader(rows, seed=4, epoch=2), loader(rows, seed=4, epoch=2))
        batches = loader(rows, seed=4, epoch=2)
        assert same(batches, batches)

    def test_another_epoch_or_seed_gives_others(self, rows, loader):
        first = loader(rows, seed=4, epoch=2)
        assert not same(first, loader(rows, seed=4, epoch=3))
        assert not same(first, loader(rows, seed=5, epoch=2))

    def test_the_state_of_torch_s_own_generator_plays_no_part_and_is_left_alone(self, rows, loader):
        torch.manual_seed(1)
        first = flat(loader(rows))
        torch.manual_seed(2)
        state = torch.get_rng_state()
        second = flat(loader(rows))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_all_batches_are_full_but_the_last(self, rows, loader):
        count = len(rows[0])
        sizes = [len(batch.users) for batch in loader(rows)]
        assert sizes == [BATCH] * (count // BATCH) + [count % BATCH]
        assert count % BATCH
        assert len(loader(rows)) == len(sizes)

    @pytest.mark.parametrize("batch_size", [1, 10**6])
    def test_any_batch_size_will_do(self, rows, loader, batch_size):
        batches = loader(rows, batch_size=batch_size)
        assert len(list(batches)) == len(batches) == (len(rows[0]) if batch_size == 1 else 1)

    def test_a_batch_size_that_divides_the_rows_leaves_no_empty_batch(self, rows, loader):
        count = len(rows[0]) // 8 * 8
        batches = loader(tuple(column[:count] for column in rows), batch_size=8)
        assert [len(batch.users) for batch in batches] == [8] * (count // 8)

    def test_a_batch_size_below_one_is_refused(self, rows, loader):
        with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
            loader(rows, batch_size=0)

    def test_the_order_is_shuffled(self, rows, loader):
        users, *_ = flat(loader(rows))
        assert not torch.equal(users, rows[0])

    def test_lightning_finds_where_to_set_the_epoch(self, rows, loader):
        batches = loader(rows)
        batches.sampler.set_epoch(7)
        assert same(batches, loader(rows, epoch=7))


def test_a_rating_stays_with_its_pair(rows):
    expected = {(u, i): r for u, i, r in zip(*(column.tolist() for column in rows), strict=True)}
    for batch in ratings(rows):
        assert batch.ratings.dtype == torch.float32
        for user, item, stars in zip(*(column.tolist() for column in batch), strict=True):
            assert expected[user, item] == stars


class TestNegatives:
    def test_none_has_been_interacted_with(self, rows):
        known = set(zip(rows[0].tolist(), rows[1].tolist(), strict=True))
        for epoch in range(20):
            users, _, negatives = flat(bpr(rows, epoch=epoch))
            assert negatives.dtype == torch.int64
            assert not known & set(zip(users.tolist(), negatives.tolist(), strict=True))
            assert 0 <= int(negatives.min()) <= int(negatives.max()) < NUM_ITEMS

    def test_who_has_one_item_left_always_gets_that_one(self, rows):
        users, _, negatives = flat(bpr(rows))
        assert set(negatives[users == 3].tolist()) == {11}

    def test_they_are_uniform_over_the_rest(self):
        users, items = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 4, 9, 2])
        sampler = NegativeSampler(users, items, num_items=10)
        draws = sampler(torch.tensor([0, 1, 2]).repeat_interleave(20_000), epoch_generator(3, 0))
        for user, known in enumerate(([0, 4, 9], [2], [])):
            counts = torch.bincount(draws[user * 20_000 : (user + 1) * 20_000], minlength=10)
            rest = [item for item in range(10) if item not in known]
            assert counts[known].sum() == 0
            assert chisquare(counts[rest].numpy()).pvalue > 0.01

    def test_more_than_the_positives_may_be_kept_from_them(self):
        positives = torch.tensor([0, 0]), torch.tensor([1, 2])
        disliked = NegativeSampler(torch.tensor([0, 0, 0, 0]), torch.tensor([1, 2, 0, 4]), num_items=5)
        _, _, negatives = flat(BPRBatches(*positives, disliked, batch_size=1, seed=0))
        assert negatives.tolist() == [3, 3]

    def test_a_pair_given_twice_counts_once(self):
        sampler = NegativeSampler(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]), num_items=3)
        assert set(sampler(torch.zeros(200, dtype=torch.int64), epoch_generator(0, 0)).tolist()) == {0, 2}

    def test_a_user_who_has_interacted_with_every_item_is_refused(self):
        users, items = torch.tensor([0, 1, 1, 1]), torch.tensor([1, 0, 1, 2])
        with pytest.raises(RecflowError, match="A user has interacted with all 3 items"):
            NegativeSampler(users, items, num_items=3)

    def test_random_state_follows_seed_and_epoch_alone(self):
        states = {
            epoch_generator(seed, epoch).get_state().numpy().tobytes() for seed in range(-3, 30) for epoch in range(30)
        }
        assert len(states) == 33 * 30
        assert torch.equal(epoch_generator(2**80, 1).get_state(), epoch_generator(2**80, 1).get_state())
