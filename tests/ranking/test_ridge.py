"""Ridge regressions of many rows against numpy, one row at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from threading import BrokenBarrierError
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking import ridge as module
from recflow.ranking.histories import Histories
from recflow.ranking.ridge import Start, ridge_regressions
from recflow.ranking.threads import on_all_cores

COLUMNS, DIM = 30, 6


def problem(seed: int, num_rows: int = 17, dtype: torch.dtype = torch.float64) -> tuple[Histories, Tensor, Tensor]:
    """Rows of every length, from empty to all columns; inputs; a penalty for each weight of each row."""
    random = np.random.default_rng(seed)
    dense = random.random((num_rows, COLUMNS)) < np.linspace(0, 1, num_rows)[:, None]
    dense = dense[random.permutation(num_rows)]
    users, items = (torch.from_numpy(part) for part in dense.nonzero())
    wanted = torch.from_numpy(random.normal(size=len(users))).to(dtype)
    inputs, ridge = random.normal(size=(COLUMNS, DIM)), random.uniform(0.05, 2, size=(num_rows, DIM))
    rows = Histories.from_pairs(users, items, num_rows, COLUMNS, wanted)
    return rows, torch.from_numpy(inputs).to(dtype), torch.from_numpy(ridge).to(dtype)


def one_by_one(rows: Histories, inputs: Tensor, ridge: Tensor, wanted: Tensor) -> tuple[Any, float]:
    weights, loss = np.zeros((rows.num_users, inputs.shape[1])), 0.0
    for row in range(rows.num_users):
        part = slice(int(rows.indptr[row]), int(rows.indptr[row + 1]))
        x, target = inputs[rows.items[part]].double().numpy(), wanted[part].double().numpy()
        penalty = np.diag(ridge[row].double().numpy())
        weights[row] = np.linalg.solve(x.T @ x + penalty, x.T @ target)
        loss += float(((target - x @ weights[row]) ** 2).sum() + weights[row] @ penalty @ weights[row])
    return weights, loss


@given(st.integers(0, 10_000), st.sampled_from([1, 300, 3000, 2**22]), st.sampled_from([0.1, 0.5, 1.0]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_row_is_solved_as_numpy_solves_it(seed: int, chunk_bytes: int, like: float, given_values: bool) -> None:
    rows, inputs, ridge = problem(seed)
    wanted = rows.ratings if given_values else torch.ones_like(rows.ratings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_BYTES", chunk_bytes)
        patch.setattr(module, "_LIKE", like)
        found = ridge_regressions(rows, inputs, ridge, wanted if given_values else None)
    weights, loss = one_by_one(rows, inputs, ridge, wanted)
    np.testing.assert_allclose(found.weights.numpy(), weights, rtol=1e-9, atol=1e-12)
    assert found.loss == pytest.approx(loss, rel=1e-10)
    assert found.squared_error == pytest.approx(loss - float((ridge * found.weights**2).sum()), rel=1e-9)


@pytest.mark.parametrize("chunk_bytes", [1, 700, 2**22])
def test_as_many_gradient_steps_as_weights_solve_exactly(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk_bytes)
    rows, inputs, ridge = problem(1)
    begin = torch.randn(ridge.shape, dtype=ridge.dtype, generator=torch.Generator().manual_seed(0))
    kept = begin.clone()
    exact = ridge_regressions(rows, inputs, ridge, rows.ratings)
    near = ridge_regressions(rows, inputs, ridge, rows.ratings, Start(begin, DIM + 2))
    torch.testing.assert_close(near.weights, exact.weights, rtol=1e-7, atol=1e-9)
    assert near.loss == pytest.approx(exact.loss, rel=1e-9)
    assert torch.equal(begin, kept)


def test_each_gradient_step_lowers_the_loss_it_reports() -> None:
    rows, inputs, ridge = problem(2)
    begin = torch.randn(ridge.shape, dtype=ridge.dtype, generator=torch.Generator().manual_seed(0))
    losses = []
    for steps in range(DIM):
        found = ridge_regressions(rows, inputs, ridge, rows.ratings, Start(begin, steps))
        errors = rows.ratings - (inputs[rows.items] * found.weights.repeat_interleave(rows.indptr.diff(), 0)).sum(1)
        expected = errors.square().sum() + (ridge * found.weights.square()).sum()
        assert found.loss == pytest.approx(float(expected), rel=1e-10)
        assert found.squared_error == pytest.approx(float(errors.square().sum()), rel=1e-9)
        losses.append(found.loss)
    assert all(after < before for before, after in pairwise(losses))


def test_single_precision_is_near_double() -> None:
    rows, inputs, ridge = problem(3, num_rows=60)
    exact = ridge_regressions(rows, inputs, ridge, rows.ratings)
    single = ridge_regressions(rows, inputs.float(), ridge.float(), rows.ratings.float())
    assert single.weights.dtype == torch.float32
    torch.testing.assert_close(single.weights.double(), exact.weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [None, 3])
def test_the_result_does_not_depend_on_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, steps: int | None
) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 300)
    rows, inputs, ridge = problem(4, dtype=torch.float32)
    start = None if steps is None else Start(torch.ones_like(ridge), steps)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ridge_regressions(rows, inputs, ridge, rows.ratings, start))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.equal(other.weights, found[0].weights)
        assert other.loss == found[0].loss


@pytest.mark.parametrize("columns", [[0], [0, 1, 2, 3]])
def test_a_penalty_that_vanishes_is_refused_in_one_line(columns: list[int]) -> None:
    inputs, items = torch.ones(4, 2), torch.tensor(columns)  # collinear: without a penalty there is no solution
    with pytest.raises(RecflowError, match=r"in float32: its penalty, 0 on a weight, is too small") as refused:
        ridge_regressions(Histories.of_one(items), inputs, torch.zeros(1, 2))
    assert "\n" not in str(refused.value)


def test_a_matrix_that_single_precision_cannot_factorise_is_refused() -> None:
    inputs = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).repeat(3, 1)
    rows = Histories(torch.tensor([0, 0, 20]), torch.arange(20) % 9, torch.empty(0))
    ridge = torch.tensor([0.0, 1e-7])[:, None].repeat(1, 16)  # an empty row's is not the one complained of
    with pytest.raises(RecflowError, match=r"its penalty, 1e-07 on a weight, is too small"):
        ridge_regressions(rows, inputs, ridge)
    exact = ridge_regressions(rows, inputs.double(), ridge.double())
    torch.testing.assert_close(
        inputs.double() @ exact.weights[1], torch.ones(9, dtype=torch.float64), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no grad", "inference"])
@pytest.mark.parametrize("steps", [None, 2])
def test_several_threads_work_in_the_mode_of_the_one_that_asks(
    monkeypatch: pytest.MonkeyPatch, mode: Any, steps: int | None
) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 300)
    rows, inputs, ridge = problem(5)
    start = None if steps is None else Start(torch.zeros_like(ridge), steps)
    expected = ridge_regressions(rows, inputs, ridge, rows.ratings, start).weights
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with mode():
            found = ridge_regressions(rows, inputs, ridge, rows.ratings, start).weights
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, expected)


def test_mixed_precision_around_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 300)
    rows, inputs, ridge = problem(6, dtype=torch.float32)
    expected = ridge_regressions(rows, inputs, ridge, rows.ratings).weights
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ridge_regressions(rows, inputs, ridge, rows.ratings).weights, expected)


def test_no_rows_are_no_work() -> None:
    rows = Histories(torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    found = ridge_regressions(rows, torch.ones(2, 3), torch.ones(3, 3))
    assert torch.equal(found.weights, torch.zeros(3, 3))
    assert found.loss == 0


# threads


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_pieces_are_dealt_out_whole_and_each_thread_runs_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        inside: list[int] = []

        def work(part: Sequence[int]) -> tuple[list[int], int]:
            inside.append(threads_of_a_new_thread())
            return list(part), torch.get_num_threads()

        dealt = on_all_cores(work, range(8), torch.device("cpu"))
        assert sorted(chain.from_iterable(part for part, _ in dealt)) == list(range(8))
        assert [threads for _, threads in dealt] == [1, 1, 1]
        assert threads_of_a_new_thread() == torch.get_num_threads() == 3
        assert inside == [3, 3, 3]  # threads of others that begin meanwhile are not held to one core
    finally:
        torch.set_num_threads(before)


def test_a_failing_piece_is_heard_of_and_leaves_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ZeroDivisionError):
            on_all_cores(lambda part: 1 // sum(part), [0, 0], torch.device("cpu"))
        assert threads_of_a_new_thread() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_interrupt_before_all_threads_are_there_leaves_none_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    before, submit, submitted = torch.get_num_threads(), ThreadPoolExecutor.submit, []

    def interrupted(pool: ThreadPoolExecutor, *args: Any) -> Any:
        if submitted:
            raise KeyboardInterrupt
        submitted.append(submit(pool, *args))
        return submitted[0]

    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            on_all_cores(lambda part: sum(part), [1, 2], torch.device("cpu"))
        monkeypatch.undo()
        assert isinstance(submitted[0].exception(timeout=10), BrokenBarrierError)
        assert threads_of_a_new_thread() == 2
    finally:
        torch.set_num_threads(before)
