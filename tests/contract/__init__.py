"""What users of TorchServe count on, seen from outside a started server."""
