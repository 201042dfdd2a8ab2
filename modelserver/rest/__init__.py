"""REST: the HTTP protocol, and one ASGI app per port that translates between HTTP and the engine."""
