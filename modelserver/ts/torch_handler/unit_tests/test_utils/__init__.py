"""A stand-in for the context, and model directories."""
