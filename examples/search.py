"""``oml-vit-ext index``, ``query`` and ``sync`` for the bundled pictures and model.

    python examples/search.py index photos --to photo_index           # the bundled model; again: only what is new
    python examples/search.py query cat.jpg --index photo_index -k 5  # a table, and a picture of the five nearest
    python examples/search.py sync --index photo_index --remove cat/1.jpg

``python examples/search.py index --help`` lists what else there is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from oml_vit_ext.commands.main import app

ROOT = Path(__file__).parent.parent
BUNDLED = ["irt/variant=irt_o", f"pretrained={ROOT}/examples/demo_weights/vit_tiny_emoji.safetensors"]
SETTLED = ("--config-name", "--model", "--help", "-h")


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["index"] and not any(a.split("=")[0] in SETTLED for a in arguments):
        arguments += ["--config-name", "irt/predict_demo", *BUNDLED]
    app(arguments, prog_name="search.py")


if __name__ == "__main__":
    main()
