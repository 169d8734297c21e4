"""Parse → typed options → pipeline → print: the only package that prints or sets an exit code."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from dtvit_deploy.cli.app import app
    from dtvit_deploy.cli.failure import terminate_cleanly

    terminate_cleanly()
    app()
