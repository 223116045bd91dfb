"""Source archives are fetched as mere files, from wherever pip is set to look; none of their code runs."""

import hashlib
import io
import os
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_index import asset, files_of, left_in_cache

from peftbench.assets import fetch as assets
from peftbench.errors import UserError

NAME = "rated_texts-1.0.tar.gz"


def tar_of(members, *others):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for other in others:
            tar.addfile(other)
    return data.getvalue()


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """No settings of pip but those of the test, and an empty cache."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    return monkeypatch


@pytest.fixture
def folder(tmp_path, settings):
    """A folder of archives that pip is set to look at."""
    settings.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    settings.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def rated_texts(place, content=None, **fields):
    """Write the archive, with a setup script that would leave a trace, and return the asset that is in it."""
    inner = tar_of({"data/a.txt": b"1\t0.5\tfine\n"})
    setup = f"open({str(place / 'trace')!r}, 'w')".encode()
    content = content or tar_of({"rated-1.0/setup.py": setup, "rated-1.0/resources/data.tar.gz": inner})
    (place / NAME).write_bytes(content)
    package = {"name": "Rated.Texts", "version": "1.0", "sha256": hashlib.sha256(content).hexdigest(), "file": NAME}
    return asset(**{"packages": [package], "archive": "data.tar.gz", "folder": "data"} | fields)


def test_an_archive_inside_a_source_archive_is_unpacked_and_no_setup_runs(folder, capsys):
    texts = rated_texts(folder)
    assert files_of(assets.fetch(texts)) == ["a.txt"] and not (folder / "trace").exists()
    assert "fetching Rated.Texts 1.0" in capsys.readouterr().err
    (folder / NAME).unlink()
    assert files_of(assets.fetch(texts)) == ["a.txt"]


def test_a_folder_of_the_source_archive_itself(folder):
    unpacked = assets.fetch(rated_texts(folder, archive=None, folder="rated-1.0/resources"))
    assert files_of(unpacked) == ["data.tar.gz"]


def test_assets_in_one_archive_are_fetched_once(folder, capsys, tmp_path):
    first = rated_texts(folder)
    path = assets.fetch(first)
    pinned = hashlib.sha256((path / "a.txt").read_bytes()).hexdigest()
    (folder / NAME).unlink()
    capsys.readouterr()
    assert assets.fetch(rated_texts(tmp_path, files={"a.txt": pinned}, packages=first.packages)) == path
    assert "fetching" not in capsys.readouterr().err
    with pytest.raises(UserError, match="wrong checksum of a.txt"):
        assets.fetch(rated_texts(tmp_path, files={"a.txt": "0" * 64}, packages=first.packages))


@pytest.fixture
def index(tmp_path):
    """The address of a package index over HTTP, and its folder."""
    served = tmp_path / "served"
    (served / "simple" / "rated-texts").mkdir(parents=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple", served
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("setting", ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"])
def test_it_is_found_through_the_index_s_page_of_the_package(index, settings, setting):
    url, served = index
    settings.setenv("NO_PROXY", "127.0.0.1")
    settings.setenv("PIP_INDEX_URL", f"{url}/nothing/here")
    settings.setenv(setting, url)
    texts = rated_texts(served)
    page = f'<a href="other-1.0.tar.gz">other</a> <a href="../../{NAME}#sha256={"0" * 64}">{NAME}</a>'
    (served / "simple" / "rated-texts" / "index.html").write_text(page)
    assert files_of(assets.fetch(texts)) == ["a.txt"]


def test_an_index_without_the_file(index, settings, tmp_path):
    url, served = index
    settings.setenv("NO_PROXY", "127.0.0.1")
    settings.setenv("PIP_INDEX_URL", url)
    (served / "simple" / "rated-texts" / "index.html").write_text("<a href='rated_texts-2.0.tar.gz'>2.0</a>")
    with pytest.raises(UserError, match=r"cannot fetch Rated\.Texts 1\.0 .*: no index has the file rated_texts-1\.0"):
        assets.fetch(rated_texts(served))
    assert left_in_cache(tmp_path) == []


def test_no_connection(settings, tmp_path):
    settings.setenv("NO_PROXY", "127.0.0.1")
    settings.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UserError, match=r"no connection: .*\. Other ways: "):
        assets.fetch(rated_texts(tmp_path))


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PIP_INDEX_URL", "http://[::1", "no connection: Invalid"),
        ("HTTP_PROXY", "gopher://x", "the proxy that is set here: Unknown scheme"),
        ("HTTP_PROXY", "http://x:y:z", "the proxy that is set here: Invalid port"),
    ],
)
def test_addresses_that_are_none(variable, value, message, settings, tmp_path):
    settings.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    settings.delenv(variable.lower(), raising=False)
    settings.setenv(variable, value)
    with pytest.raises(UserError, match=f"cannot fetch Rated.Texts 1.0 from the package index: .*{message}"):
        assets.fetch(rated_texts(tmp_path))
    assert left_in_cache(tmp_path) == []


@pytest.mark.parametrize(
    ("link", "message"), [("http://[::1/", "no connection: Invalid"), (None, "an index answers 501 Not Implemented")]
)
def test_an_index_s_answers_that_cannot_be_used(link, message, settings, tmp_path):
    class Answering(SimpleHTTPRequestHandler):
        def do_GET(self):
            content = f'<a href="{link}{NAME}">it</a>'.encode()
            self.send_response(501 if link is None else 200, None)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings.setenv("NO_PROXY", "127.0.0.1")
        settings.setenv("PIP_INDEX_URL", f"http://user:secret@127.0.0.1:{server.server_port}/simple")
        with pytest.raises(UserError, match=message) as error:
            assets.fetch(rated_texts(tmp_path))
        server.shutdown()
    assert "\n" not in str(error.value) and "secret" not in str(error.value)
    assert left_in_cache(tmp_path) == []


def test_a_certificate_bundle_that_is_not_there(settings, tmp_path):
    settings.setenv("PIP_CERT", str(tmp_path / "no.pem"))
    with pytest.raises(UserError, match=r"no\.pem: No such file"):
        assets.fetch(rated_texts(tmp_path))


def test_no_index_and_no_folder_that_has_it(folder):
    texts = rated_texts(folder)
    (folder / NAME).unlink()
    with pytest.raises(UserError, match="in none of the folders that pip looks at"):
        assets.fetch(texts)


def test_another_file_than_the_pinned_one(folder, tmp_path):
    texts = rated_texts(folder)
    (folder / NAME).write_bytes(tar_of({"data.tar.gz": b""}))
    with pytest.raises(UserError, match=r"wrong checksum of Rated\.Texts 1\.0"):
        assets.fetch(texts)
    assert left_in_cache(tmp_path) == []


def test_a_truncated_archive_whose_pin_agrees(folder, tmp_path):
    whole = tar_of({"rated-1.0/data.tar.gz": os.urandom(5000)})
    with pytest.raises(UserError, match="is damaged"):
        assets.fetch(rated_texts(folder, whole[:-1000]))
    assert left_in_cache(tmp_path) == []


@pytest.mark.parametrize("evil", ["data/../../../../evil.txt", "data//../../../evil.txt"])
def test_a_member_that_points_outside(folder, tmp_path, evil):
    content = tar_of({"rated/data.tar.gz": tar_of({"data/a.txt": b"", evil: b"x"})})
    with pytest.raises(UserError, match="points outside"):
        assets.fetch(rated_texts(folder, content))
    assert not list(tmp_path.rglob("evil.txt"))


def test_links_are_left_out(folder):
    content = tar_of({"rated/data.tar.gz": tar_of({"data/a.txt": b""}, link("data/passwords", "/etc/passwd"))})
    assert files_of(assets.fetch(rated_texts(folder, content))) == ["a.txt"]
