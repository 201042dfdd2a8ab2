"""Small functions that handlers and their tests import."""
