"""Log configurations: log4j2's XML and properties, Python's own kinds and the built-in one, read into one plan."""
