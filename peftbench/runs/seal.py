"""The digest at the end of `result.json`, by which a change of the file from outside shows."""

import hashlib
import re

_SEAL = re.compile(rb',\n  "digest": "([0-9a-f]{64})"\n\}\n\Z')


def seal(text: str) -> bytes:
    """Return a JSON object, indented by two, with one more entry at its end: the SHA-256 of all before it."""
    content = text.encode().removesuffix(b"\n}")
    return content + f',\n  "digest": "{hashlib.sha256(content).hexdigest()}"\n}}\n'.encode()


def is_sealed(content: bytes) -> bool:
    """Tell whether a file is as `seal` made it."""
    found = _SEAL.search(content)
    return found is not None and hashlib.sha256(content[: found.start()]).hexdigest().encode() == found.group(1)
