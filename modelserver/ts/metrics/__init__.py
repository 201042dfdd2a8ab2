"""Metrics that handlers record through `context.metrics`."""
