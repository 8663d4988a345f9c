"""Many inputs to one run folder: tasks, the store of results, and the loop over them."""
