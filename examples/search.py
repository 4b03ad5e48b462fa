"""``oml-vit-ext index``, ``query`` and ``sync``.

    python examples/search.py index photos --to photo_index           # the model that comes with pip
    python examples/search.py query cat.jpg --index photo_index -k 5  # a table, and a picture of the five nearest
    python examples/search.py sync --index photo_index --remove cat/1.jpg

``python examples/search.py index --help`` lists what else there is.
"""

from __future__ import annotations

import sys

from oml_vit_ext.commands.main import app

if __name__ == "__main__":
    app(sys.argv[1:], prog_name="search.py")
