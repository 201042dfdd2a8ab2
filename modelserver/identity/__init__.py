"""What the server proves itself with to clients of TLS: where it is found, and what is wrong with it."""
