"""Log files, the access log, metrics in their three modes and the Prometheus text; implements the engine's `Events`."""
