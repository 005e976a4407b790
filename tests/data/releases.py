"""Tiny MovieLens releases: as files, as an archive, and on a web server of this machine."""

import hashlib
import io
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from recflow.data.catalog import DATASETS

RATINGS = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,0.5,964981247\n2,1,3.5,1445714835\n"
MOVIES = "movieId,title,genres\n1,Toy Story (1995),Comedy\n3,Heat (1995),Crime\n"
FILES = {"ml-25m/ratings.csv": RATINGS, "ml-25m/movies.csv": MOVIES, "ml-25m/README.txt": "read me"}


def write(folder: Path, name: str, lines, *, end="\n", encoding="latin-1"):
    (folder / name).write_bytes(end.join([*lines, ""]).encode(encoding))


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
