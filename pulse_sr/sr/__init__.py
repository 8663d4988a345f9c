"""Supervised super-resolution: networks, discriminators and losses."""
