"""Settings: one table of keys, where each value came from, and the options of each model version."""
