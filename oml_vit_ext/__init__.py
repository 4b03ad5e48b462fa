"""Vision transformers for image retrieval (IRT, DToP, STIR) as a plug-in for open-metric-learning.

Importing this package registers its names with OML: ``extractor: {name: irt}`` works in YAML from then on. Where OML
has not been imported yet, which takes seconds, the names are registered the moment that it is; likewise in all
processes that this one starts.
"""

from hydra_plugins._oml_vit_ext_names import register_with_oml

__version__ = "0.2.0"
__all__ = ["__version__", "register"]


def register() -> None:
    """Put our names into OML's registries now. Calling it again changes nothing.

    Raises:
        RuntimeError: A name is taken by something that is not ours. Nothing is registered then.
    """
    from oml_vit_ext.registration import register

    register()


register_with_oml()
