"""A search page and an HTTP endpoint over indexes of images; extra ``app``."""

from oml_vit_ext.app.catalog import Catalog
from oml_vit_ext.app.service import Answer, Options, SearchService
from oml_vit_ext.app.uploads import BadUpload, crop, read_upload

__all__ = ["Answer", "BadUpload", "Catalog", "Options", "SearchService", "crop", "read_upload"]
