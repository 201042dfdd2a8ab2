"""The error of the archiver."""


class WorkflowArchiverError(Exception):
    """Arguments that cannot be packed, or an output that would be overwritten."""
