"""Where a device is, as a user writes it: ``ssh://[user@]host[:port]``.

The host may be an alias of the user's ssh configuration. What is refused is what OpenSSH 9.6 and later refuse (CVE-2023-51385,
CVE-2025-61984): a configuration may hand host and user to a shell in ``ProxyCommand`` or ``Match exec``, and earlier releases let any
characters through to it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import unquote

from dtvit_deploy.errors import InputError

SCHEME = "ssh://"
_LONGEST = 255
"""Letters of a host's name (RFC 1035), and more than any user's name has."""
_OF_SHELLS = frozenset("'\"`$\\;&<>|(){}")
_OF_USERS = _OF_SHELLS - {"\\"} | frozenset("%/?#")
"""A domain's users have a backslash in their name; what follows ``%`` or ``$`` is a variable of ssh's; the others end a URL's user."""
_PASSWORD = re.compile(r"(?::|%3a).*@", re.DOTALL | re.IGNORECASE)
"""Up to the last ``@``, since a password may hold some; no user's name holds a colon, in whatever spelling."""
_FORM = "write ssh://HOST, ssh://USER@HOST or ssh://USER@HOST:PORT; an IPv6 address stands in brackets"
_ALIAS = "give the device a plain alias: `Host orin` with its `HostName`, `User` and `Port` in your ssh configuration, then ssh://orin"


class Address(NamedTuple):
    """A device that ssh reaches.

    Attributes:
        host: a name, an alias of the ssh configuration, or an IP address, without brackets.
        user: None: the one of the ssh configuration, or of this machine.
        port: None: the one of the ssh configuration, or 22.
    """

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

    @property
    def arguments(self) -> list[str]:
        """What the ssh client is told; options first, and the host where none is looked for any more."""
        user = ["-l", self.user] if self.user else []
        port = ["-p", str(self.port)] if self.port else []
        return [*user, *port, "--", self.host]


def parse(text: str) -> Address:
    """Read an address.

    Raises:
        InputError: it is none, or one with a password, a path, or characters that a shell would take for its own. No password is repeated.
    """
    scheme = re.match(r"(?:[\w+.-]+://)?", text)
    begin = scheme.end() if scheme else 0
    if (without := _PASSWORD.sub(":…@", text[begin:])) != text[begin:]:
        raise InputError(
            f"{text[:begin] + without!r:.200} holds a password, which others could see in the list of processes and in logs",
            remedy="take it out, use a key (ssh-keygen, ssh-copy-id), and change the password",
        )
    if not text.startswith(SCHEME):
        raise InputError(f"{text!r:.200} is no address of a device", remedy=_FORM)
    rest = text.removeprefix(SCHEME).removesuffix("/")
    if extra := re.search(r"[/?#]", rest):
        what = {"/": "a path", "?": "a query", "#": "a fragment"}[extra[0]]
        raise InputError(f"{text!r:.200}: {what} says nothing about where a device is", remedy=_FORM)
    user, at, place = rest.rpartition("@")
    match = re.fullmatch(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?", place)
    if match is None:
        raise InputError(f"{text!r:.200} is no address of a device", remedy=_FORM)
    host = _ipv6(match["ipv6"], text) if match["ipv6"] is not None else _decoded(match["host"], text)
    return Address(_checked_host(host, text), _checked_user(_decoded(user, text), text) if at else None, _port(match["port"], text))


def _decoded(part: str, text: str) -> str:
    """The part with ``%41`` read as in every URL."""
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError as error:
        raise InputError(f"{text!r:.200}: what is behind % is no UTF-8", remedy=_FORM) from error


def _ipv6(inside: str, text: str) -> str:
    """An IPv6 address, whose zone is set off by ``%25`` (RFC 6874) or by a bare ``%``, as people write it."""
    address, percent, zone = inside.replace("%25", "%", 1).partition("%")
    try:
        if percent and not re.fullmatch(r"[\w.-]{1,32}", zone, re.ASCII):
            raise ValueError
        return str(ipaddress.IPv6Address(address)) + percent + zone
    except ValueError as error:
        raise InputError(f"{text!r:.200}: {inside!r:.80} is no IPv6 address", remedy=_FORM) from error


def _checked_host(host: str, text: str) -> str:
    if not host:
        raise InputError(f"{text!r:.200} names no host", remedy=_FORM)
    refused = "it begins with a dash, as options do" if host.startswith("-") else ""
    if not refused and len(host) > _LONGEST:
        refused = f"it is longer than {_LONGEST} letters"
    foreign = "" if ":" in host else "@/%[]"  # where it is an IPv6 address, all of it was read
    if not refused and (
        bad := [each for each in host if each in _OF_SHELLS or each in foreign or each.isspace() or not each.isprintable()]
    ):
        refused = f"it holds {bad[0]!r}, which OpenSSH refuses in a host's name, since a shell may come to read it"
    if refused:
        raise InputError(f"{text!r:.200}: the host {host!r:.100} cannot be used: {refused}", remedy=_ALIAS)
    return host


def _checked_user(user: str, text: str) -> str:
    refused = "" if user else "it is empty"
    if user.startswith("-"):
        refused = "it begins with a dash, as options do"
    elif len(user) > _LONGEST:
        refused = f"it is longer than {_LONGEST} letters"
    elif user.endswith("\\") or re.search(r"\s-", user):
        refused = "OpenSSH refuses a backslash at the end, and a dash after a space"
    elif bad := [each for each in user if each in _OF_USERS or not each.isprintable()]:
        refused = f"it holds {bad[0]!r}, which OpenSSH refuses or replaces in a user's name, since a shell may come to read it"
    if refused:
        raise InputError(f"{text!r:.200}: the user {user!r:.100} cannot be used: {refused}", remedy=_ALIAS)
    return user


def _port(digits: str | None, text: str) -> int | None:
    if digits is None:
        return None
    if not 0 < int(digits) < 1 << 16:
        raise InputError(f"{text!r:.200}: there is no port {digits}", remedy="ports are 1 to 65535")
    return int(digits)
