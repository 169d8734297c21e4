"""The command line: ``dtvit-deploy`` and ``python -m dtvit_deploy``."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from dtvit_deploy import cli

    cli.main()


if __name__ == "__main__":
    main()
