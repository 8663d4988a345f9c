"""Faces in a photo and their landmarks, from a detector or from a file."""
