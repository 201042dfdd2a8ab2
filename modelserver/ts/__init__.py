"""The API that model code imports: what a handler may use, override and expect."""

from ts.version import __version__

__all__ = ["__version__"]
