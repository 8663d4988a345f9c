"""The training of a prior: networks, losses, one step."""
