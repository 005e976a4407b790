import numpy as np
import pytest
import torch

from recflow.metrics.predictions import Predictions


@pytest.fixture(scope="module")
def predictions():
    generator = torch.Generator().manual_seed(0)
    users = torch.randint(0, 9, (400,), generator=generator).sort().values
    rating = torch.randint(1, 6, (400,), generator=generator).float()
    predicted = rating * 0.5 + torch.rand(400, generator=generator)
    return Predictions.of(Predictions.rows(users, torch.arange(400), rating, predicted))


class TestPredictions:
    def test_packing_keeps_every_bit(self):
        rows = Predictions.rows(
            torch.tensor([2**31 - 1]), torch.tensor([7]), torch.tensor([4.5]), torch.tensor([1 / 3])
        )
        assert rows.dtype == torch.int32
        unpacked = Predictions.of(rows)
        assert [column.item() for column in unpacked] == [2**31 - 1, 7, 4.5, float(np.float32(1 / 3))]

    def test_users_errors_make_up_the_whole(self, predictions):
        frame = predictions.per_user()
        users = predictions.users.numpy()
        for user, mse, mae, ratings in frame.iter_rows():
            error = (predictions.predicted - predictions.ratings).numpy()[users == user]
            assert (mse, mae, ratings) == (
                pytest.approx((error**2).mean()),
                pytest.approx(abs(error).mean()),
                len(error),
            )
        whole = float((frame["mse"] * frame["ratings"]).sum() / frame["ratings"].sum())
        assert whole == pytest.approx(float((predictions.predicted - predictions.ratings).square().mean()))

    def test_calibration_bins_hold_every_rating_once(self, predictions):
        bins = predictions.calibration(5)
        predicted, rating = predictions.predicted.numpy(), predictions.ratings.numpy()
        edges = np.linspace(predicted.min(), predicted.max(), 6)
        for number, row in enumerate(bins.iter_rows(named=True)):
            last = number == 4
            own = (predicted >= edges[number]) & ((predicted <= edges[5]) if last else (predicted < edges[number + 1]))
            assert row["ratings"] == own.sum()
            assert row["rating"] == pytest.approx(rating[own].mean())
            assert row["predicted"] == pytest.approx(predicted[own].mean())
            assert row["sd"] == pytest.approx(rating[own].std())
        assert bins["ratings"].sum() == 400

    def test_a_prediction_on_an_edge_belongs_to_the_bin_above(self):
        stars = torch.tensor([1.0, 2.0, 3.0]).double()
        nobody = torch.zeros(3, dtype=torch.int64)
        assert Predictions(nobody, nobody, stars, stars).calibration(2)["ratings"].to_list() == [1, 2]

    def test_one_value_for_all_is_one_bin_and_nothing_none(self, predictions):
        same = predictions._replace(predicted=torch.full((400,), 3.0).double())
        assert same.calibration().height == 1
        nothing = Predictions(*(column[:0] for column in predictions))
        assert nothing.calibration().height == nothing.per_user().height == 0
