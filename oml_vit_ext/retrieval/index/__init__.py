"""An index of images that people keep."""
