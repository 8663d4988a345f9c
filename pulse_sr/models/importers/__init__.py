"""Checkpoints of other programs as networks of ours, one file a family."""
