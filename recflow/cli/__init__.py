"""The command line. Each command is a file here; only the one that is called is imported."""

from recflow.cli.main import main

__all__ = ["main"]
