"""gRPC: the same engine, in another protocol."""
