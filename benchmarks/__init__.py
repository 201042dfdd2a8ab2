"""Measures modelserver beside TorchServe and beside a bare prototype of the hot path: `python -m benchmarks`."""
