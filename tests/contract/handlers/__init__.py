"""Handlers as users write them; `contract/gallery.py` says how they are packed and what they are asked."""
