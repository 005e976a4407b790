"""The cache of parsed tables: read instead of parsed, made anew where it is damaged, shared by processes."""

import json
import multiprocessing
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from recflow.data import cache as cache_module
from recflow.data.catalog import DATASETS, load_raw
from tests.data.releases import FILES, RATINGS, files_in, offer, packed, write_folder

pytestmark = pytest.mark.usefixtures("cache")


def test_the_second_load_parses_nothing_and_a_changed_file_parses_again(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "data")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    calls = []
    parser = DATASETS["ml-25m"].parser
    monkeypatch.setitem(DATASETS, "ml-25m", replace(DATASETS["ml-25m"], parser=lambda f: calls.append(f) or parser(f)))
    first, second = load_raw("ml-25m"), load_raw("ml-25m")
    assert len(calls) == 1
    for table in ("ratings", "items", "users"):
        assert getattr(first, table).equals(getattr(second, table))
        assert getattr(first, table).schema == getattr(second, table).schema
    (folder / "ratings.csv").write_text(RATINGS.replace("0.5", "5.0"))
    assert load_raw("ml-25m").ratings["rating"].to_list() == [4.0, 5.0, 3.5]
    assert len(calls) == 2
    monkeypatch.setattr(cache_module, "PARSER_VERSION", cache_module.PARSER_VERSION + 1)
    load_raw("ml-25m")
    assert len(calls) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "header", "gone", "other"])
def test_a_damaged_cache_entry_is_made_anew(tmp_path, cache, monkeypatch, damage):
    write_folder(tmp_path / "data")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    expected = load_raw("ml-25m")
    (entry,) = (cache / "parsed").iterdir()
    table, header = entry / "ratings.parquet", entry / "header.json"
    content = table.read_bytes()
    if damage == "cut":
        table.write_bytes(content[:-10])
    elif damage == "flip":
        table.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    elif damage == "header":
        header.write_text("{")
    elif damage == "gone":
        header.unlink()
    else:
        header.write_text(json.dumps({**json.loads(header.read_text()), "sha256": "1" * 64}))
    assert load_raw("ml-25m").ratings.equals(expected.ratings)
    assert sorted(path.name for path in entry.iterdir()) == [
        "header.json",
        "items.parquet",
        "ratings.parquet",
        "users.parquet",
    ]
    if damage != "gone":
        assert table.read_bytes() == content


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch, caplog):
    write_folder(tmp_path / "data")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "file").write_text("")
    assert load_raw("ml-25m", cache_dir=tmp_path / "file" / "cache").ratings.height == 3
    assert "could not be kept" in caplog.text


def load_in_a_process(data, cache, results):
    DATASETS["ml-25m"] = replace(DATASETS["ml-25m"], num_ratings=3)
    try:
        results.put(load_raw("ml-25m", cache_dir=Path(cache)).ratings.height)
    except BaseException as error:
        results.put(repr(error))


def test_threads_that_load_at_once_do_no_harm(server, cache, monkeypatch):
    offer(server, monkeypatch, packed(FILES))
    for _ in range(5):
        shutil.rmtree(cache, ignore_errors=True)
        with ThreadPoolExecutor(8) as pool:
            heights = list(pool.map(lambda _: load_raw("ml-25m").ratings.height, range(8)))
        assert heights == [3] * 8
        assert not any(".new-" in name for name in files_in(cache))


def test_processes_that_load_at_once_do_no_harm(tmp_path, cache, monkeypatch):
    write_folder(tmp_path / "data")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=load_in_a_process, args=("ml-25m", str(cache), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [3, 3]
    for worker in workers:
        worker.join(timeout=60)
    assert len(files_in(cache)) == 4


def test_the_cache_lies_where_it_is_told(monkeypatch, tmp_path):
    assert cache_module.default_cache() == tmp_path / "cache"
    monkeypatch.delenv("RECFLOW_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_module.default_cache() == tmp_path / "recflow"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_module.default_cache() == tmp_path / ".cache" / "recflow"
