"""Envelopes: between the form in which clients send instances and what handlers take and return."""
