"""The error of the archiver."""


class ModelArchiverError(Exception):
    """Arguments that cannot be packed, or an output that would be overwritten."""
