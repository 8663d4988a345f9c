"""The border between picture files and arrays: read anything Pillow reads, write PNG."""
