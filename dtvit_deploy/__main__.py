"""The command line: ``dtvit-deploy`` and ``python -m dtvit_deploy``. Nothing is imported before the path is in order."""


def main() -> None:
    """Run the command line."""
    from dtvit_deploy import cli

    cli.main()


def _without_current_folder() -> None:
    """``python -m`` lets the current folder come before the library and all that is installed: any file there could be run as ``json``.

    The user's own ``module:factory`` is looked for there when it is asked for (`dtvit_deploy.models.factory`). Where this package itself
    is found in no other folder, that one comes last.
    """
    import sys  # built in: no file is looked for

    if getattr(sys.flags, "safe_path", False):  # -P: it is not there
        return
    current = sys.path.pop(0)
    package = __file__.rpartition("/dtvit_deploy/")[0]
    if package == current:
        sys.path.append(current)


if __name__ == "__main__":
    _without_current_folder()
    main()
