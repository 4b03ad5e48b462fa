"""Where a model looks, and what a re-ranker changed: figures to look at."""
