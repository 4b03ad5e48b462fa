"""``python -m oml_vit_ext``: the same as ``oml-vit-ext``."""

from oml_vit_ext.commands.main import app

if __name__ == "__main__":
    app(prog_name="oml-vit-ext")
