"""Files as every room needs them: written whole, locked, with tensors in them, in the cache."""
