"""``oml-vit-ext info``"""

from __future__ import annotations


def info() -> None:
    """What is installed here.

    Example: oml-vit-ext info
    """
    import oml_vit_ext

    print(f"oml-vit-ext {oml_vit_ext.__version__}")
