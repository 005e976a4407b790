"""Named datasets: what each name gives, where it is taken from, and what is said about it."""

import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recflow.data import catalog, sample
from recflow.data.catalog import DATASETS, Found, available, download, load_path, load_raw
from recflow.errors import RecflowError
from tests.data.releases import FILES, files_in, offer, packed, write_folder

pytestmark = pytest.mark.usefixtures("cache")


def test_a_folder_under_the_data_dir_comes_first_and_is_told(server, tmp_path, monkeypatch):
    write_folder(tmp_path / "data")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    for _ in range(2):
        raw = load_raw("ml-25m")
        assert raw.notices == ("ml-25m: read from a folder, checked by its counts, not by checksum",)
    assert server.asked == []


def test_a_folder_that_lacks_a_file_names_it(tmp_path, monkeypatch):
    (write_folder(tmp_path / "data") / "movies.csv").unlink()
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(RecflowError, match=r"lacks the file movies\.csv"):
        load_raw("ml-25m")


def test_a_data_dir_that_is_no_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(RecflowError, match=r"RECFLOW_DATA_DIR is .*nowhere"):
        load_raw("ml-25m")


def test_the_sample_needs_no_file_and_takes_a_size(cache):
    assert load_raw("sample").ratings.equals(sample.generate().ratings)
    assert load_raw("sample:ratings=600").ratings.height == 600
    assert files_in(cache) == []


def test_a_large_sample_is_kept(cache, monkeypatch):
    monkeypatch.setattr(catalog, "_KEEP_SAMPLES_FROM", 1000)
    first, second = load_raw("sample:ratings=1000"), load_raw("sample:ratings=1000")
    assert first.ratings.equals(second.ratings)
    assert first.sha256 == second.sha256 == sample.content_hash(1000)
    assert len(files_in(cache)) == 4


@pytest.mark.parametrize(
    "name", ["sample:", "sample:ratings=0", "sample:ratings=-5", "sample:ratings=1e6", "sample:seed=3"]
)
def test_a_sample_of_no_size_is_refused(name):
    with pytest.raises(RecflowError, match=r"expected sample or sample:ratings=N"):
        load_raw(name)


def test_an_unknown_name_is_answered_with_close_ones():
    with pytest.raises(RecflowError, match=r"'ml-1M' is unknown, expected one of sample, .*did you mean ml-1m"):
        load_raw("ml-1M")


def test_every_entry_is_complete():
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert dataset.summary
        assert dataset.licence
        assert dataset.folders[0] == name
        if dataset.archive is None:
            assert dataset.url is None
            assert dataset.home.startswith("github.com/")
        else:
            assert dataset.url == f"https://files.grouplens.org/datasets/movielens/{name}.zip"
        if dataset.num_ratings is not None:
            assert f"{dataset.num_ratings:,}" in dataset.summary or name == "ncf-ml-1m"
        if dataset.archive and not dataset.may_change:
            assert len(dataset.sha256 or dataset.md5) in (64, 32)
    assert catalog.names()[0] == "sample"


@pytest.mark.parametrize("folder", ["ml-10m", "ml-10M100K"])
def test_ml_10m_may_lie_in_a_folder_of_either_name(tmp_path, monkeypatch, folder):
    (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data" / folder / "ratings.dat").write_text("1::1::3.5::9\n")
    (tmp_path / "data" / folder / "movies.dat").write_text("1::Heat (1995)::Crime\n")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    assert available("ml-10m") == "RECFLOW_DATA_DIR"
    with pytest.raises(RecflowError, match="ml-10m has 1 ratings here, expected 10,000,054"):
        load_raw("ml-10m")
    monkeypatch.setitem(DATASETS, "ml-10m", replace(DATASETS["ml-10m"], num_ratings=1))
    assert load_raw("ml-10m").name == "ml-10m"


def test_ml_latest_is_taken_as_it_is_and_its_checksum_is_told(server, tmp_path, monkeypatch):
    files = {name.replace("25m", "latest"): text for name, text in FILES.items()}
    (server.folder / "files" / "ml-latest.zip").write_bytes(packed(files))
    raw = load_raw("ml-latest")
    (notice,) = raw.notices
    assert f"the sha256 of its files here is {raw.sha256}" in notice
    write_folder(tmp_path / "data", "ml-latest")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    again = load_raw("ml-latest")
    assert again.sha256 == raw.sha256
    assert "neither by counts nor by checksum" in again.notices[0]
    assert again.notices[1] == notice


def test_another_number_of_ratings_is_refused_unless_the_dataset_may_change(tmp_path, monkeypatch):
    for name in ("ml-25m", "ml-latest-small"):
        write_folder(tmp_path / "data", name)
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], num_ratings=4))
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    for _ in range(2):  # tables that are kept are counted as well
        with pytest.raises(RecflowError, match="ml-25m has 3 ratings here, expected 4"):
            load_raw("ml-25m")
        assert "3 ratings here, expected 4" in load_raw("ml-latest-small").notices[1]


def test_a_folder_read_by_its_path_vouches_for_no_named_dataset(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "data", "ml-32m")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    assert load_path(folder).ratings.height == 3
    with pytest.raises(RecflowError, match="expected 32,000,204"):
        load_raw("ml-32m")


@pytest.mark.parametrize(
    ("name", "file", "home"),
    [
        ("gowalla", "train.txt, test.txt", r"github\.com/kuandeng/LightGCN \(Data/gowalla\)"),
        ("ncf-ml-1m", "ml-1m.train.rating", r"github\.com/hexiangnan/neural_collaborative_filtering \(Data\)"),
    ],
)
def test_what_is_not_downloaded_says_who_publishes_it_and_where_to_put_it(server, name, file, home):
    assert available(name) == "by hand"
    for ask in (load_raw, download):
        with pytest.raises(
            RecflowError, match=f"{home}; put a folder {name} with {file}.* where RECFLOW_DATA_DIR points"
        ):
            ask(name)
    assert server.asked == []


def test_another_folder_under_the_data_dir_can_be_named(tmp_path, cache, monkeypatch):
    folder = tmp_path / "data" / "yelp2018"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("0 1 2\n")
    (folder / "test.txt").write_text("0 3\n")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    assert available("yelp2018") == "RECFLOW_DATA_DIR"
    assert download("yelp2018") == Found("RECFLOW_DATA_DIR", folder)
    raw = load_raw("yelp2018")
    assert (raw.name, raw.ratings.height) == ("yelp2018", 3)
    assert "checked neither by counts nor by checksum" in raw.notices[0]
    assert len(list((cache / "parsed").iterdir())) == 1
    again = load_path(folder)
    assert again.ratings.equals(raw.ratings)
    assert (again.has_ratings, again.has_times, again.notices) == (False, False, raw.notices)
    assert len(list((cache / "parsed").iterdir())) == 1
    (folder / "test.txt").write_text("0 4\n")
    assert load_path(folder).ratings["item_id"].to_list() == [1, 2, 4]


def test_a_folder_under_the_data_dir_without_a_form_is_refused(tmp_path, monkeypatch):
    (tmp_path / "data" / "mine").mkdir(parents=True)
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    for ask in (available, download, load_raw):
        with pytest.raises(RecflowError, match=r"mine has no form that is known, expected u\.data"):
            ask("mine")


@pytest.mark.parametrize("name", ["..", ".", "", "../data", "a/b", "/etc"])
def test_a_name_never_leads_out_of_the_data_dir(tmp_path, monkeypatch, name):
    (tmp_path / "data" / "a" / "b").mkdir(parents=True)
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(RecflowError, match="is unknown, expected one of sample"):
        load_raw(name)


def test_the_place_of_a_dataset_is_told_without_fetching_it(server, tmp_path, monkeypatch):
    offer(server, monkeypatch, packed(FILES))
    assert available("sample") == available("sample:ratings=7") == "embedded"
    assert available("ml-25m") == "download"
    assert server.asked == []
    load_raw("ml-25m")
    assert available("ml-25m") == "cached"
    write_folder(tmp_path / "data")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    assert available("ml-25m") == "RECFLOW_DATA_DIR"
    with pytest.raises(RecflowError, match="'ml-25' is unknown"):
        available("ml-25")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(RecflowError, match="which is no folder"):
        available("ml-25m")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "ratings"),
    [
        ("ml-100k", 100_000),
        ("ml-1m", 1_000_209),
        ("ml-latest-small", 100_836),
        ("gowalla", 1_027_370),
        ("ncf-ml-1m", 1_000_209),
    ],
)
def test_the_real_datasets_load_and_load_again(name, ratings):
    if not (Path(os.environ.get("RECFLOW_DATA_DIR") or "/nonexistent") / name).is_dir():
        pytest.skip(f"RECFLOW_DATA_DIR has no {name}/")
    first, second = load_raw(name), load_raw(name)
    assert first.ratings.height == ratings
    for table in ("ratings", "items", "users", "tags", "negatives"):
        assert getattr(first, table).equals(getattr(second, table))
    assert (second.has_ratings, second.has_times) == (first.has_ratings, first.has_times)
    assert second.items.schema.get("genres", pl.List(pl.String)) == pl.List(pl.String)
    by_path = load_path(Path(os.environ["RECFLOW_DATA_DIR"]) / name)
    assert by_path.ratings.equals(first.ratings)
    assert by_path.sha256 == first.sha256
