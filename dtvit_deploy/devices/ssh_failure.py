"""Why a device cannot be reached, from what the ssh client says: each reason in one message with its remedy.

OpenSSH gives one exit status, 255, for all of them. Its words have been the same for many releases, and are in English whatever the locale.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from dtvit_deploy.devices.address import Address
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.words import last_line, shown

CONFIG = "DTVIT_DEPLOY_SSH_CONFIG"
"""Names a configuration file for the ssh client in place of ``~/.ssh/config``: of a bench of devices, say."""


class _Reason(NamedTuple):
    """What ssh says, as a pattern; what that means; what to do. In both, ``{words}`` and the names of `_ByHand` stand for what they are."""

    pattern: str
    told: str
    remedy: str


_REASONS = (
    _Reason(
        r"HOST IDENTIFICATION HAS CHANGED|host key .* has changed|WARNING: REVOKED HOST KEY|Host key .* is revoked",
        "it shows another host key than the one that is known: another machine has its address, or somebody stands between",
        "if it was set up anew, ask its owner for the fingerprint of its key, forget the old one (ssh-keygen -R {known}),"
        " and connect once by `{ssh}`, where you compare it",
    ),
    _Reason(
        r"Host key verification failed|No .* host key is known for",
        "its host key is not known here, and nobody is asked about one in the middle of a run",
        "connect once by `{ssh}`, compare the fingerprint with what the device's owner tells you, and accept it",
    ),
    _Reason(
        r"bad permissions",
        "ssh takes no private key that others can read: {words}",
        "chmod 600 that file",
    ),
    _Reason(
        r"Load key",
        "a private key cannot be used: {words}",
        "see by ssh-keygen -y -f FILE whether it is whole; a key with a passphrase must be in the agent (ssh-add)",
    ),
    _Reason(
        r"agent refused operation|signing failed",
        "the ssh agent, or the token behind it, did not sign: {words}",
        "unlock the agent (ssh-add -l says what is in it), or touch the token when it blinks",
    ),
    _Reason(
        r"Too many authentication failures",
        "more keys were offered than it looks at: {words}",
        "name the right one for it in your ssh configuration: `IdentityFile` and `IdentitiesOnly yes`",
    ),
    _Reason(
        r"Permission denied|No more authentication methods",
        "it let nobody in with the keys that were offered: {words}",
        "give it your public key ({copy}); a key with a passphrase must be in the agent (ssh-add), since nobody is asked for one",
    ),
    _Reason(
        r"Could not resolve hostname",
        "its name is not known: {words}",
        "correct the spelling, or give its address: ssh://USER@192.168.1.5, or `HostName` in your ssh configuration",
    ),
    _Reason(
        r"Connection refused",
        "there is a machine, and no ssh server answers at that port",
        "start its ssh server (on Debian and Ubuntu: apt install openssh-server), or give its port: ssh://HOST:PORT",
    ),
    _Reason(
        r"timed out|No route to host|Network is unreachable|Host is down|timeout, server .* not responding",
        "it does not answer: {words}",
        "see whether it is switched on and in the same network, and whether a firewall lets port 22 through",
    ),
    _Reason(
        r"kex_exchange_identification|banner exchange|Connection (?:closed|reset) by|no matching .* found",
        "something answers there that is no ssh server for you, or not now: {words}",
        "try `{ssh}` by hand, and read the log of its ssh server",
    ),
)
_CONFIGURED = re.compile(
    r"onfiguration (?:file|option)|Bad (?:owner or permissions|yes/no)|\bline \d+:|contains invalid characters|keyword .* extra arguments",
    re.IGNORECASE,
)


class _ByHand(NamedTuple):
    """What a person types for a device: to connect, to give it a key, and its name among the known hosts."""

    ssh: str
    copy: str
    known: str


def _by_hand(address: Address, said: Mapping[str, str]) -> _ByHand:
    config = os.environ.get(CONFIG)
    aside = ["-F", config] if config else []
    port, host = said.get("port", "22"), said.get("hostname", address.host)
    user = f"{address.user}@" if address.user else ""
    place = [*(["-p", str(address.port)] if address.port else []), f"{user}{address.host}"]
    known = said.get("hostkeyalias") or (host if port == "22" else f"[{host}]:{port}")
    return _ByHand(shlex.join(["ssh", *aside, *place]), shlex.join(["ssh-copy-id", *aside, *place]), shlex.quote(known))


def unreachable(address: Address, settings: Mapping[str, str], said: bytes, *, loosened: bool = False) -> InputError | MissingError:
    """The error that says why.

    Args:
        settings: what the configuration says for the device.
        said: what the client said on standard error.
        loosened: the configuration would have any host key accepted, and was not followed in that.
    """
    lines = said.decode(errors="replace").splitlines()
    hands = _by_hand(address, settings)
    for reason in _REASONS:
        if found := [line for line in lines if re.search(reason.pattern, line)]:
            told = reason.told.replace("{words}", shown(found[0]))
            if loosened and "host key" in reason.told:
                told += " (that your ssh configuration accepts any key for it is not followed here)"
            return MissingError(f"{address} cannot be reached: {told}", remedy=reason.remedy.format(**hands._asdict()))
    if any(_CONFIGURED.search(line) for line in lines):
        return misconfigured(str(address), said)
    return MissingError(
        f"{address} cannot be reached: {last_line(said) or 'ssh ended without a word'}", remedy=f"try `{hands.ssh}` by hand"
    )


def misconfigured(name: str, said: bytes) -> InputError:
    """Of a configuration that the ssh client does not accept."""
    where = [line for line in said.splitlines() if re.search(rb"\bline \d+:", line, re.IGNORECASE)]  # before the one that sums up
    return InputError(
        f"{name}: the ssh client does not accept its configuration: {last_line(b''.join(where[:1]) or said) or 'it says nothing'}",
        remedy=f"correct ~/.ssh/config, or the file that {CONFIG} names",
    )


def no_client(name: str) -> MissingError:
    return MissingError(
        f"{name} is reached by OpenSSH's client, and there is no `ssh` in the PATH",
        remedy="install it: openssh-client on Debian and Ubuntu; macOS has it",
    )
