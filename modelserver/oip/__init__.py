"""Tensors of the Open Inference Protocol, read from and written to JSON, binary and protobuf bytes, in the worker."""
