"""What the ssh client is told besides the user's own configuration, which applies in everything else.

Options given on the command line come before those of any file. ``ssh -G`` says what the files say for a host, so that nothing of a user's
is changed without need: a time limit stays, and a check of host keys is only ever made stricter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from dtvit_deploy.devices.address import Address
from dtvit_deploy.devices.exchange import TooLongError, exchange
from dtvit_deploy.devices.ssh_failure import CONFIG, misconfigured, no_client
from dtvit_deploy.errors import InputError

CONNECTING = 15
"""Seconds for the connection to a host, and for its first word, where the user's configuration sets no limit."""
_LOGIN = 45.0
"""Seconds for what comes after that: keys, a token that somebody must touch."""
_ALIVE = 10
"""Seconds between two signs of life; three in a row may stay out. Half a minute without a network is survived by TCP itself."""
_ALWAYS = {
    "BatchMode": "yes",  # no question: nobody may be there to answer
    "ClearAllForwardings": "yes",
    "ControlPersist": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "LogLevel": "ERROR",  # without the banners of hosts
    "NoHostAuthenticationForLocalhost": "no",  # a tunnel's end is localhost too
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "Tunnel": "no",
}
_QUESTIONS = ("SSH_ASKPASS", "SSH_ASKPASS_REQUIRE")


def environment() -> dict[str, str]:
    """The variables of an ssh client that asks nothing: one that it starts for a jump host might open a window for a password."""
    return {name: value for name, value in os.environ.items() if name not in _QUESTIONS} | {"SSH_ASKPASS_REQUIRE": "never"}


def client() -> list[str]:
    """The ssh client with the configuration that it is to read."""
    config = os.environ.get(CONFIG)
    return ["ssh", *(["-F", config] if config else [])]


def settings(address: Address) -> dict[str, str]:
    """What the configuration says for a device, by keys in lower case.

    Raises:
        InputError: ssh does not accept the configuration.
        MissingError: there is no ssh client.
    """
    # Without our own options: Debian's client, for one, tells an interval of 300 s for the signs of life where BatchMode is set.
    command = [*client(), "-N", "-G", *address.arguments]
    try:
        done = exchange(command, timeout=CONNECTING, environment=environment())
    except FileNotFoundError as error:
        raise no_client(str(address)) from error
    except (TimeoutError, TooLongError) as error:
        raise misconfigured(str(address), b"it takes too long to read, or says too much: see its `Match exec`") from error
    if done.returncode != 0:
        raise misconfigured(str(address), done.stderr)
    pairs = (line.partition(" ") for line in done.stdout.decode(errors="replace").splitlines())
    return {key: value.strip() for key, _, value in pairs}


def options(said: Mapping[str, str]) -> list[str]:
    """The options of the one connection to a device, from what its configuration says."""
    chosen = dict(_ALWAYS)
    if unchecked(said):
        chosen["StrictHostKeyChecking"] = "yes"
    if said.get("connecttimeout", "none") in ("none", "0"):
        chosen["ConnectTimeout"] = str(CONNECTING)
    if said.get("serveraliveinterval", "0") == "0":
        chosen |= {"ServerAliveInterval": str(_ALIVE), "ServerAliveCountMax": "3"}
    if "forkafterauthentication" in said:  # OpenSSH 8.7 and later; an earlier one refuses what it does not know
        chosen["ForkAfterAuthentication"] = "no"
    return _options(chosen)


def patience(said: Mapping[str, str]) -> float:
    """Seconds until a connection must stand: those for the network, which the user may have set, and those for the login."""
    limit = said.get("connecttimeout", "")
    return _LOGIN + (float(limit) if limit.isdecimal() and limit != "0" else CONNECTING)


def unchecked(said: Mapping[str, str]) -> bool:
    """Whether the configuration has any host key accepted: by its word, or since what is accepted once is forgotten."""
    strict = said.get("stricthostkeychecking", "ask")
    forgotten = set(said.get("userknownhostsfile", "").split()) <= {"/dev/null", "none"} and "userknownhostsfile" in said
    return strict in ("false", "no", "off") or (strict == "accept-new" and forgotten)


def session(socket: str) -> list[str]:
    """The client of one command, over a connection that is there: it reads no configuration, and never makes a connection of its own."""
    alone = {"BatchMode": "yes", "ControlMaster": "no", "LogLevel": "ERROR", "ProxyCommand": "false"}
    return ["ssh", "-F", "none", "-S", socket, "-T", *_options(alone), "--", "device"]


def socket_name(path: str) -> str:
    """A path as ``ControlPath`` takes it.

    Raises:
        InputError: ssh would read a variable in it.
    """
    if "${" in path or path.startswith("~"):
        raise InputError(f"the folder for temporary files has a name that ssh takes for a variable: {path}", remedy="set TMPDIR to another")
    return path.replace("%", "%%")


def _options(chosen: Mapping[str, str]) -> list[str]:
    return [word for name, value in chosen.items() for word in ("-o", f"{name}={value}")]
