"""Dotted names as keys of torch's dictionaries, which take no dot."""


def escape(name: str) -> str:
    """Return a dotted name as a key."""
    return name.replace(".", "/")


def unescape(key: str) -> str:
    """Return the dotted name that `escape` made a key of."""
    return key.replace("/", ".")
