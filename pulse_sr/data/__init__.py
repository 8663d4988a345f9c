"""Training images for any trainer: found, decoded once, dealt out in an order of their own."""
