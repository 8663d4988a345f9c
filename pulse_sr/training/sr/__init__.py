"""Supervised training of super-resolution networks: recipes, one step, the task of the loop."""
