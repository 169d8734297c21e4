"""Parse → typed options → pipeline → print: the only package that prints or sets an exit code."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from dtvit_deploy.cli import failure

    failure.end_on_request()
    failure.open_streams()
    try:
        with failure.told():
            from dtvit_deploy.cli.app import app

            app()
    finally:
        failure.end_at_once()
