"""Losses: tensors in, one number out; a file a family."""
