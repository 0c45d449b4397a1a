"""Keep the databases of a parent and its children in step."""

__version__ = "0.1.0"
