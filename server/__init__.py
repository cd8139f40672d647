"""The pipeline between documents and answers, and its faces: HTTP and the command line."""

__version__ = "0.1.0"
