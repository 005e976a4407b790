"""What the tests of data share: a cache and a server of their own, and tables written to be read."""

from dataclasses import replace

import pytest

from recflow.data.catalog import DATASETS
from recflow.data.tables import load_table
from recflow.errors import RecflowError
from tests.data.releases import Server


@pytest.fixture
def cache(tmp_path, monkeypatch, request):
    """Nothing of the user's own: an empty cache, no proxy, tiny datasets."""
    for name in ("RECFLOW_MIRROR", "XDG_CACHE_HOME", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if request.node.get_closest_marker("data") is None:
        monkeypatch.delenv("RECFLOW_DATA_DIR", raising=False)
        for name in ("ml-25m", "ml-latest-small"):
            monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], num_ratings=3))
    monkeypatch.setenv("RECFLOW_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(cache, tmp_path, monkeypatch):
    (tmp_path / "www" / "files").mkdir(parents=True)
    server = Server(tmp_path / "www")
    monkeypatch.setenv("RECFLOW_MIRROR", server.url)
    yield server
    server.stop()


@pytest.fixture
def load(tmp_path):
    """Writes a file and reads it as ratings."""

    def write_and_load(content, *arguments, name="my.csv", **options):
        path = tmp_path / name
        if isinstance(content, list):
            content = "\n".join([*content, ""])
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_table(path, *arguments, cache_dir=tmp_path / "cache", **options)

    return write_and_load


@pytest.fixture
def refused(load, tmp_path):
    """The one line with which a file is refused, without the folder."""

    def message(content, *arguments, **options):
        with pytest.raises(RecflowError) as caught:
            load(content, *arguments, **options)
        text = str(caught.value)
        assert "\n" not in text
        return text.replace(f"{tmp_path}/", "")

    return message
