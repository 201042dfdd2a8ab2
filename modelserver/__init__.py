"""modelserver: serves PyTorch model archives over REST and gRPC."""
