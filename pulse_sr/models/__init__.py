"""What a model file is, where models are found, and how a foreign one becomes ours."""
