"""Object code on disk, keyed by everything it depends on.

A file is written under another name and renamed, so that two processes that build at once, or a
build that is interrupted, leave whole files; its content is checked when it is read. A directory
that can not be read or written is as good as an empty one.
"""

import hashlib
import os
import tempfile
from pathlib import Path

DIGEST = hashlib.sha256
FOLDER = "FLOWOPT_CACHE"


def cache_folder() -> Path:
    """$FLOWOPT_CACHE, else flowopt in the user's cache directory."""
    named = os.environ.get(FOLDER)
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "flowopt"


def read(key: str) -> bytes | None:
    """Object code of a key, if it is there and whole."""
    try:
        content = _path(key).read_bytes()
    except OSError:
        return None
    size = DIGEST().digest_size
    digest, code = content[:size], content[size:]
    return code if code and DIGEST(code).digest() == digest else None


def write(key: str, code: bytes) -> bool:
    """Keeps object code; returns whether that was possible."""
    path = _path(key)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(DIGEST(code).digest() + code)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        return False
    return True


def _path(key: str) -> Path:
    return cache_folder() / f"{key}.o"
