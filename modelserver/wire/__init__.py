"""The frames that frontend, nursery and workers exchange: structs, encoders, decoders, and nothing else."""
