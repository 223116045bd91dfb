"""Source archives of the package index, downloaded as mere files: to read their metadata, pip would run their code.

Where the index is, is pip's own setting.
"""

import ast
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

import httpx

from peftbench.errors import UserError

_DEFAULT_INDEX = "https://pypi.org/simple"
_TIMEOUT_SECONDS = 60


def download_source_archive(package: Mapping[str, str], target: Path) -> None:
    """Write the file `package["file"]` of a package to `target`, from the folders and indexes that pip looks at.

    Raises UserError, the reason alone, where none has it or the connection fails.
    """
    settings = _pip_settings()
    name = package["file"]
    for place in settings.get("find-links", "").split():
        path = _local_path(place) / name
        if path.is_file():
            shutil.copyfile(path, target)
            return
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        raise UserError(f"{name} is in none of the folders that pip looks at, and pip is set to use no index")
    indexes = [settings.get("index-url", _DEFAULT_INDEX), *settings.get("extra-index-url", "").split()]
    failures: list[str] = []
    try:
        with httpx.Client(
            timeout=_TIMEOUT_SECONDS, follow_redirects=True, verify=_certificates(settings.get("cert"))
        ) as client:
            for index in indexes:
                if index.startswith("file:"):
                    continue
                page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', package['name']).lower()}/"
                try:
                    if url := _link(client, page, name):
                        _save(client, url, target)
                        return
                except httpx.HTTPStatusError as error:  # its own text has the address, maybe with a password
                    failures.append(f"an index answers {error.response.status_code} {error.response.reason_phrase}")
                except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                    failures.append(f"no connection: {str(error) or type(error).__name__}")
    except OSError as error:  # of the certificates
        raise UserError(f"{settings.get('cert')}: {error.strerror or error}") from error
    except (httpx.InvalidURL, ValueError, ImportError) as error:
        raise UserError(f"no connection by the proxy that is set here: {error}") from error
    raise UserError(failures[0] if failures else f"no index has the file {name}")


def _link(client: httpx.Client, page: str, name: str) -> str | None:
    """Return the address of the file called `name` that an index's page of a package links to."""
    answer = client.get(page, headers={"Accept": "text/html"})
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    answer.raise_for_status()
    links = _Links()
    links.feed(answer.text)
    addresses = [urljoin(str(answer.url), link) for link in links.found]
    return next((url for url in addresses if unquote(urlsplit(url).path).rpartition("/")[2] == name), None)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _save(client: httpx.Client, url: str, target: Path) -> None:
    with client.stream("GET", url) as answer, target.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_bytes(1 << 20):
            file.write(chunk)


def _pip_settings() -> dict[str, str]:
    """Return pip's settings by name: the environment's, else its files' for `download`, else those for all."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    found: dict[str, str] = {}
    for group in ("global", "download", ":env:"):
        found |= _entries(listed.stdout, group)
    return found


def _entries(listed: str, group: str) -> dict[str, str]:
    pairs = [line.split("=", 1) for line in listed.splitlines() if line.startswith(f"{group}.") and "=" in line]
    return {key.removeprefix(f"{group}."): str(ast.literal_eval(value)) for key, value in pairs}


def _local_path(place: str) -> Path:
    return Path(url2pathname(urlsplit(place).path)) if place.startswith("file:") else Path(place)


def _certificates(bundle: str | None) -> bool | ssl.SSLContext:
    """Return how servers are checked: by the bundle that pip is set to use, or by httpx's own."""
    return True if bundle is None else ssl.create_default_context(cafile=bundle)
