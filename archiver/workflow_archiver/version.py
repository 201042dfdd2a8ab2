"""The version written into manifests as `archiverVersion`: that of the archive format's contract."""

__version__ = "0.2.15"
