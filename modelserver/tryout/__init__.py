"""One handler in the foreground, without a server: `modelserver run-handler`."""
