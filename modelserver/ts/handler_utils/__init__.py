"""Building blocks for handlers: streaming, timing."""
