"""Whether a manifest says what an index needs, and nothing that leads out of its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.retrieval.index.grid import check_grid

# The files of an index, as ``commit`` is given them to write.
FILE_NAME = re.compile(r"(?:images|descriptors)-\d{6,12}-\d{6,12}\.(?:csv|npy)|faiss-\d{6,12}\.index")
_MOST = 10**12 - 2  # saves, images: as many digits as names of files have


def check_manifest(content: Mapping[str, Any]) -> None:
    """Look at every value that the index uses.

    Raises:
        ValueError: One is missing or of another kind, or a file has a name that no index gives.
    """
    for name in ("generation", "n_images", "n_trained"):
        check_whole(name, content.get(name), 0, _MOST)
    check_grid(content.get("grid", 0))  # those of earlier versions have none
    kinds: dict[str, tuple[type, ...]] = {
        **{"root": (str,), "index": (str,), "faiss_file": (str,)},
        **{"model": (dict,), "files": (dict,), "parts": (list,), "config": (dict, type(None))},
    }
    for name, expected in kinds.items():
        if not isinstance(content.get(name), expected):
            raise ValueError(f"{name} is {content.get(name)!r:.80}, expected a {expected[0].__name__}.")
    if not content["root"] or "\0" in content["root"]:
        raise ValueError(f"root is {content['root']!r:.80}, expected a folder.")
    for name, entry in content["files"].items():
        if not FILE_NAME.fullmatch(name):
            raise ValueError(f"files names {name!r:.80}, expected the name of a file of an index.")
        if not isinstance(entry, dict) or not isinstance(entry.get("checksum"), str):
            raise ValueError(f"the entry of {name!r} is {entry!r:.80}, expected size and checksum.")
        check_whole(f"the size of {name!r}", entry.get("size"))
    for part in content["parts"]:
        if not isinstance(part, list) or len(part) != 2 or not all(_is_listed(name, content) for name in part):
            raise ValueError(f"parts holds {part!r:.80}, expected two of its files.")
    if not content["parts"] and content["n_images"]:
        raise ValueError(f"parts is empty, expected those of {counted(content['n_images'], 'image')}.")
    if content["faiss_file"] and not _is_listed(content["faiss_file"], content):
        raise ValueError(f"faiss_file is {content['faiss_file']!r:.80}, expected one of its files.")
    if not isinstance(content.get("faiss_mark", ""), str):
        raise ValueError(f"faiss_mark is {content['faiss_mark']!r:.80}, expected a text.")


def _is_listed(name: object, content: Mapping[str, Any]) -> bool:
    return isinstance(name, str) and name in content["files"]
