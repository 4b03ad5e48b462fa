"""Batch samplers of the host's interface."""
