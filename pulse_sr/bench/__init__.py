"""The project's own benchmarks: our code against a plain baseline, interleaved in one process."""
