"""STIR: the pairwise model that compares query and candidate on pixel level, and the re-ranker that runs it."""
