"""Augmentation of the images that a discriminator sees, real and generated alike."""
