"""Base classes of handlers whose models are spread over several processes."""
