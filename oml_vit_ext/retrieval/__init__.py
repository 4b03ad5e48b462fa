"""Search through faiss: the host's results at scale, an index to keep, the protocols of the benchmarks."""
