import time
from collections import Counter

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from recflow.data.batches import BPRBatches, NegativeSampler, PointwiseBatches, RatingBatches, epoch_generator
from recflow.errors import RecflowError

NUM_USERS, NUM_ITEMS, BATCH = 13, 19, 16
pairs = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=40)


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


def pointwise(rows, seed=0, epoch=0, batch_size=BATCH, num_negatives=3) -> PointwiseBatches:
    users, items, _ = rows
    negatives = NegativeSampler(users, items, NUM_ITEMS)
    batches = PointwiseBatches(users, items, negatives, batch_size, seed, num_negatives)
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


def naive_negatives(users, known, num_items, generator):
    """Draw for all, then again for those whose draw is known, with a set instead of a search in sorted keys."""
    drawn = torch.randint(num_items, (len(users),), generator=generator)
    again = [place for place in range(len(users)) if (int(users[place]), int(drawn[place])) in known]
    while again:
        drawn[again] = torch.randint(num_items, (len(again),), generator=generator)
        again = [place for place in again if (int(users[place]), int(drawn[place])) in known]
    return drawn


def test_the_stream_of_triples_is_what_published_results_were_made_with(rows):
    keep = rows[0] != 3  # who has nearly everything is drawn for in another way
    users, items = rows[0][keep], rows[1][keep]
    known = set(zip(users.tolist(), items.tolist(), strict=True))
    for epoch in range(5):
        generator = torch.Generator().manual_seed(7 * 1_000_003 + epoch)
        order = torch.randperm(len(users), generator=generator)
        negatives = naive_negatives(users[order], known, NUM_ITEMS, generator)
        expected = zip(*(column.split(BATCH) for column in (users[order], items[order], negatives)), strict=True)
        for batch, triple in zip(bpr((users, items, None), seed=7, epoch=epoch), expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, triple, strict=True))


class TestPointwise:
    def test_each_interaction_comes_once_with_its_own_negatives_behind_it(self, rows):
        known = set(zip(rows[0].tolist(), rows[1].tolist(), strict=True))
        came = Counter()
        for batch in pointwise(rows):
            assert (batch.users.dtype, batch.items.dtype, batch.labels.dtype) == (
                torch.int64,
                torch.int64,
                torch.float32,
            )
            for group in torch.arange(len(batch.users)).split(4):
                user, items = batch.users[group].tolist(), batch.items[group].tolist()
                assert len(set(user)) == 1
                assert batch.labels[group].tolist() == [1, 0, 0, 0]
                assert all((user[0], item) not in known for item in items[1:])
                came[user[0], items[0]] += 1
        assert came == Counter(known)

    @pytest.mark.parametrize(("batch_size", "num_negatives", "interactions"), [(16, 3, 4), (19, 3, 4), (3, 3, 1)])
    def test_a_batch_counts_rows_and_parts_no_interaction_from_its_negatives(
        self, rows, batch_size, num_negatives, interactions
    ):
        batches = pointwise(rows, batch_size=batch_size, num_negatives=num_negatives)
        sizes = [len(batch.users) for batch in batches]
        last = len(rows[0]) % interactions or interactions
        assert sizes[:-1] == [interactions * (1 + num_negatives)] * (len(batches) - 1)
        assert sizes[-1] == last * (1 + num_negatives)

    def test_same_seed_and_epoch_give_the_same_batches_and_another_gives_others(self, rows):
        first = pointwise(rows, seed=4, epoch=2)
        assert same(first, pointwise(rows, seed=4, epoch=2))
        assert not same(first, pointwise(rows, seed=4, epoch=3))
        assert not same(first, pointwise(rows, seed=5, epoch=2))

    def test_an_interaction_s_negatives_are_drawn_independently_and_anew_each_epoch(self):
        users, items = torch.zeros(9000, dtype=torch.int64), torch.zeros(9000, dtype=torch.int64)
        negatives = NegativeSampler(users, items, num_items=4)
        pairs_drawn = torch.zeros(16)
        for epoch in range(2):
            batches = PointwiseBatches(users, items, negatives, batch_size=27_000, seed=1, num_negatives=2)
            batches.set_epoch(epoch)
            (batch,) = batches
            first, second = batch.items.view(-1, 3)[:, 1:].T
            pairs_drawn += torch.bincount(first * 4 + second, minlength=16)
        observed = pairs_drawn.view(4, 4)[1:, 1:].flatten()
        assert observed.sum() == 18_000
        assert chisquare(observed.numpy()).pvalue > 0.01

    def test_too_few_negatives_are_refused(self, rows):
        with pytest.raises(RecflowError, match="num_negatives must be at least 1, got 0"):
            pointwise(rows, num_negatives=0)


@pytest.mark.parametrize(("loader", "rows_each"), [(bpr, 1), (ratings, 1), (pointwise, 4)])
class TestSeveralProcesses:
    @settings(max_examples=60, deadline=None)
    @given(pairs, st.integers(1, 60), st.integers(1, 5), st.integers(0, 3))
    def test_slices_joined_by_rank_are_the_batches_of_one_process(
        self, loader, rows_each, known, batch_size, world_size, epoch
    ):
        assume(world_size <= len(known) and world_size <= max(1, batch_size // rows_each))
        users, items = torch.tensor(sorted(known)).T
        rows = users, items, torch.arange(len(users)).float()
        whole = list(loader(rows, epoch=epoch, batch_size=batch_size))
        shards = [loader(rows, epoch=epoch, batch_size=batch_size).shard(r, world_size) for r in range(world_size)]
        if len(whole[-1].users) // rows_each < world_size:
            whole.pop()
        assert {len(shard) for shard in shards} == {len(whole)}
        for batch, *slices in zip(whole, *shards, strict=True):
            for column, *parts in zip(batch, *slices, strict=True):
                assert torch.equal(torch.cat(parts), column)
            sizes = [len(part.users) for part in slices]
            assert all(size % rows_each == 0 for size in sizes)
            assert max(sizes) - min(sizes) <= rows_each
            assert min(sizes) > 0

    def test_a_last_batch_too_small_for_all_is_left_out_on_all(self, rows, loader, rows_each):
        few = tuple(column[:10] for column in rows)
        shards = [loader(few, batch_size=4 * rows_each).shard(rank, 3) for rank in range(3)]
        sizes = [[len(batch.users) // rows_each for batch in shard] for shard in shards]
        assert sizes == [[2, 2], [1, 1], [1, 1]]  # of 4, 4 and 2
        assert [len(shard) for shard in shards] == [2, 2, 2]

    def test_a_batch_smaller_than_the_processes_is_refused(self, rows, loader, rows_each):
        with pytest.raises(RecflowError, match=f"cannot be shared by 3 .* at least {3 * rows_each}"):
            loader(rows, batch_size=3 * rows_each - 1).shard(0, 3)

    def test_fewer_interactions_than_processes_are_refused(self, rows, loader, rows_each):
        with pytest.raises(RecflowError, match="2 training interactions cannot be shared by 3 processes"):
            loader(tuple(column[:2] for column in rows), batch_size=100).shard(0, 3)

    @pytest.mark.parametrize(("rank", "world_size"), [(3, 3), (-1, 3), (0, 0)])
    def test_a_rank_outside_the_world_is_refused(self, rows, loader, rows_each, rank, world_size):
        with pytest.raises(ValueError, match=f"got rank {rank} and world_size {world_size}"):
            loader(rows).shard(rank, world_size)


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

    @pytest.mark.parametrize("rounds", [100, 0])
    @pytest.mark.parametrize("exponent", [0, 0.75, 1])
    def test_by_popularity_they_follow_the_counts_over_the_rest(self, monkeypatch, rounds, exponent):
        monkeypatch.setattr("recflow.data.negatives._ROUNDS", rounds)  # 0: all draws that were taken are drawn exactly
        counts = [1, 2, 4, 0, 9, 30]
        users = torch.cat([torch.tensor([50])] + [torch.arange(count) for count in counts[1:]])
        items = torch.arange(6).repeat_interleave(torch.tensor(counts))
        again = items == 1  # a pair given twice counts once
        users, items = torch.cat([users, users[again]]), torch.cat([items, items[again]])
        sampler = NegativeSampler(users, items, 6, "popularity", exponent)
        for user, rest in ((3, [0, 1]), (8, [0, 1, 2]), (99, [0, 1, 2, 4, 5])):
            draws = sampler(torch.full((40_000,), user), epoch_generator(1, user))
            observed = torch.bincount(draws, minlength=6)
            weights = torch.tensor(counts).double() ** exponent
            expected = weights[rest] / weights[rest].sum() * 40_000
            assert observed[rest].sum() == 40_000
            assert chisquare(observed[rest].numpy(), expected.numpy()).pvalue > 0.01

    @pytest.mark.parametrize("distribution", ["uniform", "popularity"])
    def test_whom_little_is_left_gets_it_quickly_and_in_the_right_proportions(self, distribution):
        num_items, left = 50_000, torch.tensor([0, 7, 20_000, 49_999])
        known = torch.ones(num_items, dtype=torch.bool).index_fill_(0, left, False).nonzero().flatten()
        # User 0 has all but four items, user 1 all but one; ten more users give the four 1, 2, 3 and 4 counts more.
        users = torch.cat([torch.zeros(len(known)), torch.ones(num_items - 1), torch.arange(10) + 2]).long()
        items = torch.cat([known, torch.arange(num_items - 1), left.repeat_interleave(torch.tensor([1, 2, 3, 4]))])
        sampler = NegativeSampler(users, items, num_items, distribution, exponent=1)
        asked = torch.tensor([0, 1, 5]).repeat(4000)
        start = time.perf_counter()
        draws = sampler(asked, epoch_generator(1, 0))
        assert time.perf_counter() - start < 5  # by rejection alone: hours
        assert (draws[asked == 1] == num_items - 1).all()
        observed = torch.bincount(draws[asked == 0], minlength=num_items)[left]
        weights = torch.bincount(items, minlength=num_items)[left].double()
        shares = torch.full((4,), 0.25).double() if distribution == "uniform" else weights / weights.sum()
        assert observed.sum() == 4000
        assert chisquare(observed.numpy(), (shares * 4000).numpy()).pvalue > 0.01

    @settings(max_examples=100, deadline=None)
    @given(pairs, st.sampled_from(["uniform", "popularity"]), st.sampled_from([0, 1, 100]))
    def test_however_they_are_drawn_all_that_is_free_comes_and_nothing_else(self, known, distribution, rounds):
        drawable = set(range(9)) if distribution == "uniform" else {item for _, item in known}
        rest = {user: drawable - {item for other, item in known if other == user} for user in range(6)}
        assume(all(rest.values()))
        users, items = torch.tensor(sorted(known)).T
        sampler = NegativeSampler(users, items, 9, distribution, exponent=0.5)
        asked = torch.arange(6).repeat(300)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("recflow.data.negatives._ROUNDS", rounds)
            draws = sampler(asked, epoch_generator(0, 0))
        assert {user: set(draws[asked == user].tolist()) for user in range(6)} == rest

    def test_who_has_no_interaction_at_all_may_be_given_any_item(self):
        nothing = torch.empty(0, dtype=torch.int64)
        draws = NegativeSampler(nothing, nothing, num_items=3)(torch.arange(100), epoch_generator(0, 0))
        assert set(draws.tolist()) == {0, 1, 2}
        with pytest.raises(RecflowError, match="no interactions to draw negatives by popularity from"):
            NegativeSampler(nothing, nothing, 3, "popularity")

    def test_a_user_who_has_all_items_that_anybody_has_is_refused_by_popularity(self):
        users, items = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1])
        NegativeSampler(users, items, num_items=3)
        with pytest.raises(RecflowError, match="all 2 items that can be drawn: none is left"):
            NegativeSampler(users, items, 3, "popularity")

    @pytest.mark.parametrize(
        ("settings_given", "message"),
        [
            ({"distribution": "popular"}, "by uniform or popularity, not by 'popular'"),
            ({"distribution": "popularity", "exponent": -1.0}, "at least 0, got -1.0"),
            ({"distribution": "popularity", "exponent": float("nan")}, "at least 0, got nan"),
        ],
    )
    def test_a_distribution_that_cannot_be_is_refused(self, settings_given, message):
        with pytest.raises(RecflowError, match=message):
            NegativeSampler(torch.tensor([0]), torch.tensor([0]), 3, **settings_given)

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
