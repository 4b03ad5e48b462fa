"""Public retrieval data sets as dataframes of the host."""
