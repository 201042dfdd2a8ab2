"""The child processes: the nursery that makes workers, and the worker that loads a handler and serves batches."""
