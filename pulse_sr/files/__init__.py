"""Files as every room needs them: written whole, locked."""
