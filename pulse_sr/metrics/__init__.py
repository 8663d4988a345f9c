"""Quality measures: one metric, one file. Images go in as tensors in [0, 1]."""
