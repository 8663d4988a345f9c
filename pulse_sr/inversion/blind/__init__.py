"""`--operator auto`: which operator made a low-res face."""
