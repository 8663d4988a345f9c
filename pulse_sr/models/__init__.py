"""What a model file is, and where models are found."""
