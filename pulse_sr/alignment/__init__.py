"""Faces of a photo: framed, cut out, made small, and pasted back by the inverse transform."""
