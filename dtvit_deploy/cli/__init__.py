"""Parse → typed options → pipeline → print: the only package that prints or sets an exit code."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; the process ends with it."""
    from dtvit_deploy.cli import failure

    code: object = 0
    try:
        with failure.told():  # which tells of a request to end also where it comes while that is made ready
            failure.end_on_request()
            failure.open_streams()
            from dtvit_deploy.cli.app import app

            app()
    except SystemExit as chosen:
        code = chosen.code
    failure.leave(code if isinstance(code, int) else 0 if code is None else failure.DEFECT)
