"""Dropout by fewer random numbers."""

import pytest
import torch

from recflow.training.dropout import dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_share_is_left_out_independently_and_made_up_for(share):
    torch.manual_seed(0)
    x = torch.ones(400, 301)  # not a multiple of four
    kept = dropout(x, share, training=True)
    assert kept.shape == x.shape
    assert sorted(set(kept.unique().tolist())) == pytest.approx([0.0, 1 / (1 - share)], rel=1e-4)
    gone = (kept == 0).double()
    assert float(gone.mean()) == pytest.approx(share, abs=0.005)
    for lag in (1, 2, 3, 4):  # entries that share a random number are as independent as any
        together = (gone.flatten()[lag:] * gone.flatten()[:-lag]).mean()
        assert float(together) == pytest.approx(share**2, abs=0.006)


def test_gradients_pass_where_entries_do():
    x = torch.ones(50, 7, requires_grad=True)
    kept = dropout(x, 0.3, training=True)
    kept.sum().backward()
    assert torch.equal(x.grad, kept.detach())


def test_nothing_is_left_out_otherwise():
    x = torch.ones(5, 3)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_the_seed_fixes_it():
    torch.manual_seed(4)
    first = dropout(torch.ones(40, 5), 0.5, training=True)
    torch.manual_seed(4)
    assert torch.equal(dropout(torch.ones(40, 5), 0.5, training=True), first)


def test_a_share_of_all_but_one_leaves_something():
    torch.manual_seed(0)
    kept = dropout(torch.ones(1000, 200), 0.999999, training=True)
    assert bool(kept.isfinite().all())
    assert 0 < float((kept > 0).float().mean()) < 1e-4
