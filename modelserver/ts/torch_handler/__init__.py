"""Handlers that serve common kinds of models, and the class that others derive from.

Importing any module of this package neither queries nor initialises an accelerator; that waits for `initialize`.
"""
