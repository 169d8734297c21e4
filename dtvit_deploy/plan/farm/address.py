"""The scheduler's address, and what must be true of the way there."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dtvit_deploy.errors import DeployError, InputError, MissingError

if TYPE_CHECKING:
    from distributed import Client

SECONDS = 10
"""How long a scheduler has to answer."""
_ADDRESS = re.compile(r"(?P<scheme>tls|tcp)://(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>[0-9]{1,5})")
_CERTIFICATES = (
    "name certificate, key and authority in Dask's configuration: distributed.comm.tls.ca-file, and cert and key of"
    " distributed.comm.tls.client (docs/farm.md)"
)


def require_safe(address: str, *, insecure: bool = False) -> str:
    """The address of a scheduler, once it is certain that nobody on the way can read or change what is sent.

    Whoever speaks to a scheduler can have its workers run anything, and what workers return is believed.

    Args:
        address: ``tls://host:port``; ``tcp://`` where the host is this machine, by number or as ``localhost``.
        insecure: whether ``tcp://`` may leave it.

    Raises:
        InputError: it is no such address, or leaves this machine in the clear.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        raise InputError(
            f"{address[:100]!r} is no scheduler's address", remedy="give tls://HOST:PORT; tcp://127.0.0.1:PORT on this machine"
        )
    if found["scheme"] == "tcp" and not insecure and not _is_here(found["host"].strip("[]")):
        raise InputError(
            f"{address} would send networks and results in the clear, and take results from whoever answers",
            remedy="give the scheduler certificates, and its tls:// address (docs/farm.md); --insecure, on a network of your own",
        )
    return address


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def connected(address: str, *, insecure: bool = False) -> Client:
    """A client of the scheduler there; the caller closes it.

    Raises:
        InputError: the address cannot be used, or no scheduler answers.
        MissingError: Dask is not installed.
    """
    require_safe(address, insecure=insecure)
    try:
        from distributed import Client
        from distributed.security import Security
    except ImportError as error:
        raise MissingError(f"a farm needs Dask: {error}", remedy="pip install 'dtvit-deploy[farm]'") from error
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what becomes of workers is said by us, once
    try:
        security = Security()
        if security.require_encryption and address.startswith("tcp:"):
            raise InputError(
                f"Dask's configuration asks for encryption (distributed.comm.require-encryption), and {address} has none",
                remedy="give the scheduler's tls:// address",
            )
        if address.startswith("tls:") and security.get_connection_args("client")["ssl_context"] is None:
            raise InputError(f"{address} asks who we are, and Dask's configuration names no certificate", remedy=_CERTIFICATES)
    except OSError as error:  # ssl.SSLError is one
        raise InputError(f"Dask's certificates cannot be used: {error}", remedy=_CERTIFICATES) from error
    try:
        return Client(address, timeout=SECONDS, security=security, set_as_default=False, name="dtvit-deploy")
    except (OSError, TimeoutError, asyncio.TimeoutError, ValueError) as error:
        raise InputError(
            f"no scheduler answers at {address} within {SECONDS} s: {_first_line(error)}",
            remedy="start one (`dask scheduler`, and `dask worker` on each machine), or look at address and certificates (docs/farm.md)",
        ) from error


@contextlib.contextmanager
def reaching(address: str) -> Iterator[None]:
    """Around what asks the scheduler there.

    Raises:
        DeployError: it is gone, or the network to it is.
    """
    from distributed import client

    closed: type[Exception] = getattr(client, "ClosedClientError", OSError)  # of recent releases
    try:
        yield
    except (OSError, asyncio.TimeoutError, closed) as error:  # before Python 3.11 the second is no OSError
        raise DeployError(
            f"the scheduler at {address} does not answer any more: {error}"[:300],
            remedy="see what became of it, and run the same again: what is done is kept",
        ) from error


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    said = (str(cause) or type(cause).__name__).splitlines()[0]
    return re.sub(r"^in <[^>]*>: ", "", said)[:200]
