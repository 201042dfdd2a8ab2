"""How results of a handler become bytes, and how pieces of them leave while the handler still runs."""
