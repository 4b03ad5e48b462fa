"""The figures of a benchmark as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oml_vit_ext.common.files import replaced


def write_json(path: Path, content: dict[str, Any]) -> None:
    with replaced(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
    print(f"\nwritten: {path}")
