"""Whether a file was written by this user: marks made with a secret that each user has.

faiss trusts what is in its files, so we have it read our own ones alone. A mark is a keyed hash of a checksum; whoever
makes an index elsewhere does not have the key, and cannot mark it as ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from oml_vit_ext.common.files import flush

_BYTES = 32
# What the marks are for, so that a mark of something else, should there ever be one, is none of a faiss file.
_PURPOSE = b"faiss file"


def mark(checksum: str) -> str:
    """The mark of a file with this checksum, in hex. The first call of a user makes the key.

    Raises:
        OSError: There is no key and none can be kept, or others can read it.
    """
    return _keyed_hash(_read_key() or _make_key(), checksum)


def is_own(marked: str, checksum: str) -> bool:
    """Whether ``marked`` is the mark of this user for a file with this checksum."""
    try:
        key = _read_key()
    except OSError:
        return False
    return key is not None and hmac.compare_digest(_keyed_hash(key, checksum).encode(), marked.encode())


def key_file() -> Path:
    """Where the key of this user is: below ``$XDG_CONFIG_HOME``, by default ``~/.config``.

    Raises:
        FileNotFoundError: The user has no home folder.
    """
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser(os.path.join("~", ".config"))
    if not os.path.isabs(folder):
        raise FileNotFoundError("There is no home folder.")
    return Path(folder, "oml_vit_ext", "makers_mark.key")


def _keyed_hash(key: bytes, checksum: str) -> str:
    return hashlib.blake2b(checksum.encode(), key=key, person=_PURPOSE, digest_size=32).hexdigest()


def _read_key() -> bytes | None:
    file = key_file()
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        return None
    if os.name != "nt":
        state = file.stat()
        if state.st_mode & 0o077:
            raise PermissionError(f"{str(file)!r} can be read by others, expected the permissions 0600: delete it.")
        if state.st_uid != os.geteuid():  # whoever put it there knows it
            raise PermissionError(f"{str(file)!r} is another user's, expected one of yours: delete it.")
    if len(key) != _BYTES:
        raise OSError(f"{str(file)!r} has {len(key)} bytes, expected {_BYTES}: delete it.")
    return key


def _make_key() -> bytes:
    """The new key, or that of another process that was faster. It appears under its name as a whole."""
    file = key_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(secrets.token_bytes(_BYTES))
        flush(unfinished)
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, file)  # unlike a rename, it replaces nothing
    finally:
        unfinished.unlink(missing_ok=True)
    key = _read_key()
    if key is None:
        raise FileNotFoundError(f"{str(file)!r} is gone.")
    return key
