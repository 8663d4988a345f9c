"""One input to its candidates: posed, searched, projected, measured."""
