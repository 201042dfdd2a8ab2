"""Saved configurations: written after every change, taken up again at the next start."""
