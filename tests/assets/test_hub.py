"""Models and tasks from a small stand-in for the hub; its client is real and runs in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """Serves <folder>/models/OWNER/NAME and <folder>/datasets/OWNER/NAME, one commit each."""

    folder: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):  # noqa: N802
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        api = parts[0] == "api"
        parts = parts[1:] if api else parts
        kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
        base, rest = self.folder / kind / parts[0] / parts[1], parts[2:]
        if not base.is_dir():
            return self.answer(404, X_Error_Code="RepoNotFound")
        return self.api(base, rest, body) if api else self.file(base / "/".join(rest[2:]))

    do_HEAD = do_POST = do_GET  # noqa: N815

    def file(self, path):
        if not path.is_file():
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        return self.answer(200, path.read_bytes(), ETag=f'"{digest(path)}"', X_Repo_Commit=COMMIT)

    def api(self, base, rest, body):
        files = [path for path in sorted(base.rglob("*")) if path.is_file()]
        if rest[0] == "revision":
            if rest[1] not in ("main", COMMIT):
                return self.answer(404, X_Error_Code="RevisionNotFound")
            names = [{"rfilename": path.relative_to(base).as_posix()} for path in files]
            return self.json({"id": "/".join(base.parts[-2:]), "sha": COMMIT, "siblings": names})
        if rest[0] == "paths-info":
            planned = parse_qs(body.decode()).get("paths", [])
            return self.json([entry(base, base / name) for name in planned if (base / name).exists()])
        inside = base / "/".join(rest[2:])
        if not inside.exists():
            return self.answer(404, X_Error_Code="EntryNotFound")
        deep = "recursive=true" in self.path.lower()
        return self.json([entry(base, path) for path in sorted(inside.rglob("*") if deep else inside.iterdir())])

    def json(self, value):
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")


def digest(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


def entry(base, path):
    common = {"path": path.relative_to(base).as_posix()}
    if path.is_dir():
        return common | {"type": "directory", "oid": "d" * 40, "size": 0}
    return common | {"type": "file", "oid": digest(path), "size": path.stat().st_size}


@pytest.fixture
def hub(tmp_path):
    """The hub's folder, and a function that runs Python code against it."""
    folder = tmp_path / "hub"
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Hub,), {"folder": folder}))
    thread = Thread(target=server.serve_forever)
    thread.start()

    def run(code, **environment):
        url = f"http://127.0.0.1:{server.server_port}"
        variables = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "home"),
            "PYTHONPATH": str(ROOT),
        } | environment
        keep = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGINGFACE_", "PEFTBENCH_")) and not name.lower().endswith("_proxy")
        }
        result = subprocess.run(
            [sys.executable, "-c", PREAMBLE + code],
            env=keep | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    yield folder, run
    server.shutdown()
    server.server_close()
    thread.join()


PREAMBLE = f"""
import yaml
from pathlib import Path
from types import SimpleNamespace
from peftbench.assets import fetch as assets
from peftbench.errors import UserError
from peftbench.tasks.image.sources import open_source
from peftbench.tasks.text.read import load_task

def config(group, preset, **fields):
    defaults = dict(id=None, subset=None, revision=None, packages=[], folder=None, archive=None, files={{}},
                    path=None, dir=None, convert=None, label="label", labels=[], splits={{}}, threshold=None,
                    max_length=128)
    text = Path({str(ROOT)!r}, "conf", group, preset + ".yaml").read_text()
    return SimpleNamespace(**defaults | yaml.safe_load(text) | fields)

def model(name, **fields):
    try:
        folder = assets.fetch(config("model", "hub", id=name, **fields))
        print(*sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    except UserError as error:
        print(error)

def task(preset, **fields):
    try:
        task = load_task(config("task", preset, **fields))
        print(task.source, {{name: (split.texts[0], split.labels) for name, split in task.splits.items()}})
    except UserError as error:
        print(error)

def images(preset):
    try:
        open_source(config("task", preset))
    except UserError as error:
        print(error)
"""


def add_model(folder, name, *weights):
    for file in ("config.json", "tokenizer.json", "onnx/model.onnx", "tf_model.h5", "README.md", *weights):
        path = folder / "models" / "acme" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{{}} {file}")


@pytest.mark.long
def test_a_model_needs_few_of_its_repository_s_files(hub):
    folder, run = hub
    add_model(folder, "both", "model.safetensors", "pytorch_model.bin")
    add_model(folder, "old", "pytorch_model.bin")
    add_model(folder, "none")
    out = run('model("acme/both"); model("acme/old"); model("acme/none"); model("acme/gone")\n'
              'model("acme/both", revision="v9")').splitlines()  # fmt: skip
    assert out[0] == "config.json model.safetensors tokenizer.json"
    assert out[1] == "config.json pytorch_model.bin tokenizer.json"
    assert "neither model.safetensors nor pytorch_model.bin" in out[2]
    assert out[3].startswith("cannot fetch acme/gone from the hub: there is no such repository, or it is private")
    assert "model=minilm" in out[3] and "model=local model.path=FOLDER" in out[3]
    assert "it has no such revision" in out[4]
    # Fetched once, it is there without a network too.
    there, gone = run('model("acme/both"); model("acme/gone")', HF_HUB_OFFLINE="1").splitlines()
    assert there == out[0] and "HF_HUB_OFFLINE is set" in gone


def add_glue(folder):
    import pyarrow
    import pyarrow.parquet

    base = folder / "datasets" / "nyu-mll" / "glue"
    (base / "mrpc").mkdir(parents=True)
    splits = {"train": [1, 0], "validation": [0, 1], "test": [-1, -1]}
    for split, labels in splits.items():
        table = {"sentence1": ["a", "b"], "sentence2": ["c", "d "], "label": labels, "idx": [0, 1]}
        pyarrow.parquet.write_table(pyarrow.table(table), base / "mrpc" / f"{split}-00000-of-00001.parquet")
    files = "".join(f"  - split: {split}\n    path: mrpc/{split}-*\n" for split in splits)
    (base / "README.md").write_text(f"---\nconfigs:\n- config_name: mrpc\n  data_files:\n{files}---\n")


@pytest.mark.long
def test_a_task(hub):
    folder, run = hub
    add_glue(folder)
    expected = "hub nyu-mll/glue mrpc " + str(
        {"train": (("a", "c"), [1, 0]), "validation": (("a", "c"), [0, 1]), "test": (("a", "c"), None)}
    )
    out = run('task("mrpc"); task("mrpc", label="lable"); task("rte", id="no/such")').splitlines()
    assert out[0] == expected
    assert "has no column 'lable' among sentence1, sentence2, label, idx" in out[1]
    assert out[2].startswith("cannot fetch no/such rte from the hub: there is no such repository")
    assert "task.dir=FOLDER" in out[2] and "task=stsb_binary" in out[2]
    assert run('task("mrpc")', HF_HUB_OFFLINE="1") == expected


def test_no_network_fails_fast_with_the_other_ways(hub):
    _, run = hub
    code = 'import time; start = time.time(); model("acme/both"); task("mrpc"); images("cifar100"); '
    code += "assert time.time() - start < 10"
    model, *tasks = run(code, HF_ENDPOINT="http://127.0.0.1:9").splitlines()
    for line in (model, *tasks):
        assert line.startswith("cannot fetch ") and "refused" in line and "Other ways: " in line
    assert len(tasks) == 2 and all("HF_HUB_OFFLINE=1" in line for line in tasks)
