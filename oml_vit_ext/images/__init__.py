"""Image files: which there are, how large they are, and their pixels."""
