"""What REST and gRPC say in the same words, which are TorchServe's."""
