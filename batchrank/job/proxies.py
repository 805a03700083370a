"""Finds the proxy that an endpoint is reached through, in the job or the environment, by the rules known from curl."""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from batchrank.errors import JobError


def proxy_address(value: str) -> str:
    """A proxy's address in full; as elsewhere, the scheme may be left out.

    Raises:
        ValueError: it is none; the address is not repeated, as it may hold a password.
    """
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        usable = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = None
    if not usable or parts.scheme not in ("http", "https"):
        kind = "a SOCKS proxy can't be used" if value.startswith("socks") else "this is no proxy's address"
        raise ValueError(f"{kind}; write http://host:port, or http://user:password@host:port")
    return address


def proxy_for(url: str, configured: str | None, environ: Mapping[str, str]) -> str | None:
    """The proxy for an address; None where there is none.

    The job's own wins, ``none`` included. Else the variable of the address's scheme counts, then ``ALL_PROXY``, unless
    ``NO_PROXY`` lists the host; of each the name in small letters first. Loopback is no exception.

    Raises:
        JobError: a variable names a proxy that can't be used.
    """
    if configured is not None:
        return None if configured == "none" else configured
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if _listed(parts.hostname or "", port, _value(environ, "no_proxy")[1]):
        return None
    for variable in (f"{parts.scheme}_proxy", "all_proxy"):
        name, value = _value(environ, variable)
        if value:
            try:
                return proxy_address(value)
            except ValueError as error:
                raise JobError(f"environment, {name}: {error}; or set endpoint.proxy") from None
    return None


def _value(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable in small or capital letters, and its value; an empty one counts as none at all."""
    for spelled in (name, name.upper()):
        if value := environ.get(spelled, "").strip():
            return spelled, value
    return name, ""


def _listed(host: str, port: int, names: str) -> bool:
    """Whether a host needs no proxy: by its name, a domain above it, its address, a network, or ``*``."""
    return any(_covers(name.lower(), host.lower(), port) for name in re.split(r"[,\s]+", names) if name)


def _covers(name: str, host: str, port: int) -> bool:
    if name == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        pass
    bare, colon, number = name.rpartition(":")
    if colon and number.isdigit() and not bare.endswith(":"):
        if port != int(number):
            return False
        name = bare
    name = name.removeprefix("*").strip("[]").removeprefix(".").rstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
