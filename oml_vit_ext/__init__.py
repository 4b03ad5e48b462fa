"""Vision transformers for image retrieval (IRT, DToP, STIR) as a plug-in for open-metric-learning.

Importing this package registers its names with OML: ``extractor: {name: irt}`` works in YAML from then on.
"""

from oml_vit_ext.registration import register

__version__ = "0.1.0"
__all__ = ["__version__", "register"]

register()
