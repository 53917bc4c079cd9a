"""The command line: one file per group of commands."""

from guide_fast.cli.app import main

__all__ = ["main"]
