"""Where the work of a job is done: each executor takes the same jobs and writes the same bytes."""
