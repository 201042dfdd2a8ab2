"""Base classes of the oldest kind of handlers."""
