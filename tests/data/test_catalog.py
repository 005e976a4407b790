"""Named datasets: found, downloaded from a real server, verified, unpacked and kept, each with its failures."""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from recflow.data import cache as cache_module
from recflow.data import catalog, movielens, sample
from recflow.data.catalog import DATASETS, load_raw
from recflow.errors import RecflowError

RATINGS = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,0.5,964981247\n2,1,3.5,1445714835\n"
MOVIES = "movieId,title,genres\n1,Toy Story (1995),Comedy\n3,Heat (1995),Crime\n"
FILES = {"ml-25m/ratings.csv": RATINGS, "ml-25m/movies.csv": MOVIES, "ml-25m/README.txt": "read me"}


def packed(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()


class Server:
    """A real web server on this machine, its folder, and the paths it was asked for."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *args):
                outer.asked.append(self.path)

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/files"
        threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        self.httpd.shutdown()
        self.httpd.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, request):
    """Nothing of the user's own: an empty cache, no proxy, tiny datasets."""
    for name in ("RECFLOW_MIRROR", "XDG_CACHE_HOME", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if request.node.get_closest_marker("data") is None:
        monkeypatch.delenv("RECFLOW_DATA_DIR", raising=False)
        monkeypatch.setattr(movielens, "NUM_RATINGS", {"ml-25m": 3, "ml-latest-small": 3})
    monkeypatch.setenv("RECFLOW_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "www" / "files").mkdir(parents=True)
    server = Server(tmp_path / "www")
    monkeypatch.setenv("RECFLOW_MIRROR", server.url)
    yield server
    server.stop()


def offer(server, monkeypatch, content, name="ml-25m", sha256=None):
    """Put an archive on the server and let the catalogue expect it."""
    dataset = DATASETS[name]
    (server.folder / "files" / dataset.archive).write_bytes(content)
    expected = sha256 or hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(DATASETS, name, replace(dataset, sha256=expected))


def files_in(folder):
    return (
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
    )


def write_folder(root, name="ml-25m"):
    (root / name).mkdir(parents=True)
    (root / name / "ratings.csv").write_text(RATINGS)
    (root / name / "movies.csv").write_text(MOVIES)
    return root / name


def test_a_download_is_verified_unpacked_parsed_and_kept(server, cache, monkeypatch):
    offer(server, monkeypatch, packed(FILES))
    raw = load_raw("ml-25m")
    assert raw.ratings.height == 3
    assert raw.notices == ()
    assert server.asked == ["/files/ml-25m.zip"]
    kept = files_in(cache)
    assert [name for name in kept if name.startswith("archives")] == ["archives/ml-25m.zip"]
    assert not any("README" in name or ".new-" in name for name in kept)
    server.stop()
    again = load_raw("ml-25m")
    assert again.ratings.equals(raw.ratings)
    assert again.items.equals(raw.items)
    assert again.sha256 == raw.sha256
    assert server.asked == ["/files/ml-25m.zip"]


def test_a_wrong_checksum_names_both_sums_and_leaves_nothing(server, cache, monkeypatch):
    content = packed(FILES)
    offer(server, monkeypatch, content, sha256="0" * 64)
    with pytest.raises(RecflowError, match=f"sha256 {hashlib.sha256(content).hexdigest()}, expected {'0' * 64}"):
        load_raw("ml-25m")
    assert files_in(cache) == []


def test_a_dataset_that_may_change_is_taken_with_another_checksum_and_a_notice(server, monkeypatch):
    files = {name.replace("25m", "latest-small"): text for name, text in FILES.items()}
    offer(server, monkeypatch, packed(files), name="ml-latest-small", sha256="0" * 64)
    for _ in range(2):
        (notice,) = load_raw("ml-latest-small").notices
        assert "expected 0000" in notice


@pytest.mark.parametrize("name", ["ml-25m", "ml-latest-small"])
def test_a_truncated_archive_is_refused_and_not_kept(server, cache, monkeypatch, name):
    files = {member.replace("ml-25m", name): text for member, text in FILES.items()}
    offer(server, monkeypatch, packed(files)[:-60], name=name)
    with pytest.raises(RecflowError, match="cut short or damaged"):
        load_raw(name)
    assert files_in(cache) == []


@pytest.mark.parametrize(
    "member", ["../evil.txt", "/evil.txt", "ml-25m/../../evil.txt", "..\\evil.txt", "C:\\evil.txt"]
)
def test_an_archive_that_reaches_outside_its_folder_is_refused(server, cache, monkeypatch, member):
    offer(server, monkeypatch, packed({**FILES, member: "evil"}))
    with pytest.raises(RecflowError, match="a path outside its folder"):
        load_raw("ml-25m")
    assert files_in(cache) == []
    assert not list(cache.parent.rglob("evil*"))


def test_an_archive_without_a_needed_file_is_refused(server, cache, monkeypatch):
    offer(server, monkeypatch, packed({"ml-25m/ratings.csv": RATINGS}))
    with pytest.raises(RecflowError, match=r"lacks the file ml-25m/movies\.csv"):
        load_raw("ml-25m")
    assert files_in(cache) == []


def test_no_server_is_one_line_with_the_other_ways(server, cache):
    server.stop()
    with pytest.raises(RecflowError) as caught:
        load_raw("ml-1m")
    message = str(caught.value)
    assert f"ml-1m cannot be downloaded from {server.url}/ml-1m.zip: there is no connection" in message
    assert all(way in message for way in ("RECFLOW_DATA_DIR", "RECFLOW_MIRROR", "--data sample"))
    assert "\n" not in message
    assert files_in(cache) == []


@pytest.mark.parametrize(
    ("mirror", "reason"),
    [(None, "404"), ("nonsense", "No scheme supplied|Invalid URL"), ("file:///x", "no connection|adapter")],
)
def test_any_other_failure_of_the_download_is_one_line_too(server, cache, monkeypatch, mirror, reason):
    if mirror:
        monkeypatch.setenv("RECFLOW_MIRROR", mirror)
    with pytest.raises(RecflowError, match=reason) as caught:
        load_raw("ml-1m")
    assert "--data sample" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_in(cache) == []


def test_an_expired_certificate_is_said_to_be_one(cache, monkeypatch):
    import pooch
    import requests

    def refuse(*args):
        raise requests.exceptions.SSLError("certificate verify failed: certificate has expired")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", refuse)
    with pytest.raises(RecflowError, match=r"files\.grouplens\.org.*the server's TLS certificate is not accepted"):
        load_raw("ml-1m")


def test_a_folder_under_the_data_dir_comes_first_and_is_told(server, tmp_path, monkeypatch):
    write_folder(tmp_path / "data")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    for _ in range(2):
        raw = load_raw("ml-25m")
        assert raw.notices == ("ml-25m: read from a folder, checked by its counts, not by checksum",)
    assert server.asked == []


def test_an_archive_under_the_data_dir_is_verified_and_used(server, tmp_path, cache, monkeypatch):
    content = packed(FILES)
    offer(server, monkeypatch, content)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ml-25m.zip").write_bytes(content)
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    assert load_raw("ml-25m").notices == ()
    assert server.asked == []
    (tmp_path / "data" / "ml-25m.zip").write_bytes(content + b"x")
    with pytest.raises(RecflowError, match="has sha256"):
        load_raw("ml-25m")
    assert server.asked == []  # what was put there by hand is never replaced in silence


def test_a_folder_that_lacks_a_file_names_it(tmp_path, monkeypatch):
    (write_folder(tmp_path / "data") / "movies.csv").unlink()
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(RecflowError, match=r"lacks the file movies\.csv"):
        load_raw("ml-25m")


def test_a_data_dir_that_is_no_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(RecflowError, match=r"RECFLOW_DATA_DIR is .*nowhere"):
        load_raw("ml-25m")


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
    movielens.NUM_RATINGS["ml-25m"] = 3
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


def test_a_kept_archive_that_the_disk_has_spoilt_is_fetched_again(server, cache, monkeypatch):
    offer(server, monkeypatch, packed(FILES))
    load_raw("ml-25m")
    (cache / "archives" / "ml-25m.zip").write_bytes(b"spoilt")
    assert load_raw("ml-25m").ratings.height == 3
    assert len(server.asked) == 2
    (folder,) = (cache / "unpacked").iterdir()
    (folder / "movies.csv").unlink()
    assert load_raw("ml-25m").items.height == 2
    assert len(server.asked) == 2


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


def test_the_cache_lies_where_it_is_told(monkeypatch, tmp_path):
    assert cache_module.default_cache() == tmp_path / "cache"
    monkeypatch.delenv("RECFLOW_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_module.default_cache() == tmp_path / "recflow"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_module.default_cache() == tmp_path / ".cache" / "recflow"


def test_every_entry_is_complete():
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert len(dataset.sha256) == 64
        assert dataset.summary
        assert dataset.licence
        assert dataset.url == f"https://files.grouplens.org/datasets/movielens/{name}.zip"
    assert catalog.names()[0] == "sample"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "ratings"), [("ml-100k", 100_000), ("ml-1m", 1_000_209), ("ml-latest-small", 100_836)]
)
def test_the_real_datasets_load_and_load_again(name, ratings):
    if not (Path(os.environ.get("RECFLOW_DATA_DIR") or "/nonexistent") / name).is_dir():
        pytest.skip(f"RECFLOW_DATA_DIR has no {name}/")
    first, second = load_raw(name), load_raw(name)
    assert first.ratings.height == ratings
    for table in ("ratings", "items", "users"):
        assert getattr(first, table).equals(getattr(second, table))
    assert second.items.schema["genres"] == pl.List(pl.String)
