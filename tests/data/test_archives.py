"""Archives: downloaded from a real server, verified, unpacked and kept, each with its failures."""

import errno
import hashlib
import os
import shutil
from dataclasses import replace

import pytest

from recflow.data import archives
from recflow.data.catalog import DATASETS, Found, download, load_raw
from recflow.errors import RecflowError
from tests.data.releases import FILES, MOVIES, RATINGS, files_in, offer, packed, write_folder

pytestmark = pytest.mark.usefixtures("cache")


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


def test_ml_10m_is_verified_by_the_only_checksum_that_is_known(server, cache, monkeypatch):
    files = {"ml-10M100K/ratings.dat": "1::1::3.5::9\n", "ml-10M100K/movies.dat": "1::Heat (1995)::Crime\n"}
    content = packed(files)
    (server.folder / "files" / "ml-10m.zip").write_bytes(content)
    with pytest.raises(RecflowError, match=r"has md5 .* expected ce571fd55effeba0271552578f2648bd"):
        load_raw("ml-10m")
    assert files_in(cache) == []
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(DATASETS, "ml-10m", replace(DATASETS["ml-10m"], md5=md5, num_ratings=1))
    assert load_raw("ml-10m").ratings["rating"].to_list() == [3.5]


@pytest.mark.parametrize(("extra", "table"), [("tags.csv", "tags"), ("links.csv", "items")])
def test_optional_files_count_one_by_one(server, cache, monkeypatch, extra, table):
    text = {
        "tags.csv": "userId,movieId,tag,timestamp\n2,1,fun,5\n",
        "links.csv": "movieId,imdbId,tmdbId\n1,0114709,8\n",
    }
    without = packed(FILES)
    offer(server, monkeypatch, without)
    assert load_raw("ml-25m").tags.is_empty()
    shutil.rmtree(cache)
    offer(server, monkeypatch, packed({**FILES, f"ml-25m/{extra}": text[extra]}))
    raw = load_raw("ml-25m")
    assert raw.tags.height == (table == "tags")
    assert ("imdb_id" in raw.items.columns) == (table == "items")
    (unpacked,) = (cache / "unpacked").iterdir()
    (unpacked / extra).unlink()  # a cache that has lost it is filled again from the archive
    again = load_raw("ml-25m")
    assert getattr(again, table).equals(getattr(raw, table))


def test_a_dataset_can_be_downloaded_ahead(server, tmp_path, cache, monkeypatch):
    offer(server, monkeypatch, packed(FILES))
    first, second = download("ml-25m"), download("ml-25m")
    assert (first.source, second.source) == ("download", "cached")
    assert files_in(first.folder) == ["movies.csv", "ratings.csv"]
    assert second.folder == first.folder
    assert not (cache / "parsed").exists()
    server.stop()
    assert load_raw("ml-25m").ratings.height == 3
    assert download("sample") == Found("embedded", None)
    folder = write_folder(tmp_path / "data")
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    assert download("ml-25m")[:2] == ("RECFLOW_DATA_DIR", folder)


@pytest.fixture
def small_disk():
    """No file grows beyond 2,000 bytes: the kernel refuses to write on, as it does on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def shrink(size=2_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield shrink
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_while_downloading_is_one_line(server, cache, monkeypatch, small_disk):
    offer(server, monkeypatch, packed({**FILES, "ml-25m/README.txt": os.urandom(9_000).hex()}))
    small_disk()
    with pytest.raises(RecflowError) as caught:
        load_raw("ml-25m")
    message = f"ml-25m cannot be kept in {cache}: File too large; make room there, or set RECFLOW_CACHE_DIR"
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_in(cache) == []


def test_a_disk_that_is_full_while_unpacking_is_one_line(server, cache, monkeypatch, small_disk):
    offer(server, monkeypatch, packed({**FILES, "ml-25m/ratings.csv": RATINGS + "1,1,4.0,964982703\n" * 1_000}))
    download("ml-25m")
    shutil.rmtree(cache / "unpacked")
    small_disk()
    for _ in range(2):  # the archive that is kept is whole: it is neither thrown away nor fetched again
        with pytest.raises(RecflowError, match=r"cannot be kept in .*: File too large; make room there"):
            load_raw("ml-25m")
    assert files_in(cache) == ["archives/ml-25m.zip"]
    assert len(server.asked) == 1


def test_no_space_left_is_told_in_its_own_words(tmp_path, cache, monkeypatch):
    content = packed(FILES)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ml-25m.zip").write_bytes(content)
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setitem(DATASETS, "ml-25m", replace(DATASETS["ml-25m"], sha256=hashlib.sha256(content).hexdigest()))

    def full(source, target):
        target.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    with pytest.raises(RecflowError, match="No space left on device; make room there, or set RECFLOW_CACHE_DIR"):
        load_raw("ml-25m")
    assert files_in(cache) == []


def test_a_cache_that_is_a_file_is_one_line(server, cache, monkeypatch):
    offer(server, monkeypatch, packed(FILES))
    cache.write_text("")
    with pytest.raises(
        RecflowError, match=r"ml-25m cannot be kept in .*cache: .*; make room there, or set RECFLOW_CACHE"
    ):
        load_raw("ml-25m")


def test_no_damage_to_an_archive_is_anything_but_one_line(tmp_path, cache, monkeypatch):
    """Truncations and flipped bytes of an archive whose checksum may change."""
    whole = packed({"ml-latest/ratings.csv": RATINGS, "ml-latest/movies.csv": MOVIES})
    expected = {"ratings.csv": RATINGS.encode(), "movies.csv": MOVIES.encode()}
    archive = tmp_path / "data" / "ml-latest.zip"
    archive.parent.mkdir()
    monkeypatch.setenv("RECFLOW_DATA_DIR", str(archive.parent))
    damaged = [whole[:length] for length in range(0, len(whole), 3)]
    damaged += [whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :] for place in range(0, len(whole), 3)]
    refusals = []
    for content in damaged:
        archive.write_bytes(content)
        try:
            folder = download("ml-latest").folder
        except RecflowError as error:
            refusals.append(str(error))
        else:  # a flip in a date or an attribute: what is unpacked is right all the same
            assert {name: (folder / name).read_bytes() for name in expected} == expected
    assert len(refusals) > len(damaged) * 0.7
    assert not any("\n" in refusal for refusal in refusals)
    assert not any(".new-" in name for name in files_in(cache))
