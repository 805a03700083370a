"""Checks what a job says about its endpoint beyond single keys (fields of requests, the proxy), and reads its API keys.

A job names API keys and never holds one.
"""

import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from batchrank.errors import JobError
from batchrank.models import Vendor

REDACTED = "(not shown)"

_INPUT = "it comes from the input; remove it"
_SCORES = "merging needs the score of every document; remove it, and set output.top_n to write fewer"
_INSTRUCT = "the job has a key for it; set instruct"
_RESERVED = {
    "model": "it is the job's model; set model: {base: ..., name: ...}",
    **dict.fromkeys(("query", "documents", "texts", "passages", "input"), _INPUT),
    **dict.fromkeys(("top_n", "top_k"), _SCORES),
    "stream": "answers are read whole; remove it",
}
_OF_WIRE = {
    "dashscope": {"instruct": _INSTRUCT},
    "dashscope-native": {
        "parameters.top_n": _SCORES,
        "parameters.instruct": _INSTRUCT,
        "parameters.fps": "the job has a key for it; set fps",
    },
    "siliconflow": {"instruction": _INSTRUCT},
}
_SECRET = {
    "key", "apikey", "token", "secret", "password", "passwd", "pwd", "credential", "credentials", "auth",
    "authorization", "bearer",
}  # fmt: skip
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def check_body(body: Mapping[str, Any], wire: str) -> None:
    """See that the added fields leave alone what batchrank itself says in a request.

    Raises:
        JobError: one of them does not; names it, and says where it belongs.
    """
    for path, why in {**_RESERVED, **_OF_WIRE.get(wire, {})}.items():
        place: Any = body
        for name in path.split("."):
            place = place.get(name, _Absent) if isinstance(place, Mapping) else _Absent
        if place is not _Absent:
            raise JobError(f"endpoint.body.{path}: can't be set here, because {why}")
    if wire == "dashscope-native" and not isinstance(body.get("parameters", {}), Mapping):
        raise JobError("endpoint.body.parameters: must be a mapping, as instruct and fps go into it")


def check_json(body: Mapping[str, Any]) -> None:
    """See that the added fields can be written as JSON.

    Raises:
        ValueError: they can't: a number without a form there, or nesting that no request has.
    """
    try:
        orjson.dumps(body)
    except TypeError as error:
        raise ValueError(f"can't be written as JSON: {error}") from None
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        raise ValueError("infinite numbers and nan have no form in JSON; write another one") from None


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PREFIXED = re.compile(r"(?:sk|pk|pa|hf|jina|nvapi|voyage)[-_](?=\w*[0-9])\w{16,}")
_RANDOM = re.compile(r"(?=(?:\w*?[0-9]){4})(?=\w*[a-z])[A-Za-z0-9]{24,}", re.ASCII)
"""Letters and digits as vendors make keys of them; a variable's name has words instead."""


def refuse_key(name: str) -> None:
    """Refuse what is no name of a variable, or is a key that was written in its place; it isn't repeated.

    Raises:
        ValueError: it is.
    """
    if _PREFIXED.match(name) or _RANDOM.fullmatch(name):
        raise ValueError(
            "this looks like the key itself, which must not stand in a job; write the NAME of the variable that holds "
            "it, such as DASHSCOPE_API_KEY, and replace the key if others have seen this file"
        )
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            "this is no name of a variable; write the NAME of the one that holds the key, such as DASHSCOPE_API_KEY, "
            "without $ and never the key itself"
        )


class _Absent:
    """No value."""


def secrets(body: Any, *, under: bool = False) -> Iterator[str]:
    """The texts that stand under a key whose name says that they are secret: ``api_key``, ``authToken``."""
    if isinstance(body, Mapping):
        for key, value in body.items():
            yield from secrets(value, under=under or _tells_secret(key))
    elif isinstance(body, list):
        for value in body:
            yield from secrets(value, under=under)
    elif under and isinstance(body, str):
        yield body


def redacted(body: Any, *, under: bool = False) -> Any:
    """The same fields with those texts left out."""
    if isinstance(body, Mapping):
        return {key: redacted(value, under=under or _tells_secret(key)) for key, value in body.items()}
    if isinstance(body, list):
        return [redacted(value, under=under) for value in body]
    return REDACTED if under and isinstance(body, str) else body


def _tells_secret(key: str) -> bool:
    return any(word.lower() in _SECRET for word in _WORD.findall(key))


def http_address(value: str) -> str:
    """An endpoint's address, as it is.

    Raises:
        ValueError: it is none, or holds a user or password; what may be a secret is not repeated.
    """
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        bare = parts._replace(netloc=parts.hostname or "", query="").geturl()
        shown = repr(bare) if parts.scheme else "this"
        raise ValueError(f"{shown} is not an http(s) address; write the full one, path included")
    if parts.username or parts.password:
        raise ValueError("a user or password in the address would end up in reports; use api_key_env")
    return value


def http_addresses(values: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses of several servers, as they are.

    Raises:
        ValueError: one is none, or comes twice.
    """
    seen = set[str]()
    for number, value in enumerate(values, 1):
        if value == "emulator":
            raise ValueError("an emulator inside this process stands alone; write endpoint.url: emulator")
        if http_address(value) in seen:
            raise ValueError(
                f"{bare_address(value)} comes twice (number {number} is the second); a server that is to get more "
                "requests gets them by itself, as the least busy one is asked"
            )
        seen.add(value)
    return values


def bare_address(url: str) -> str:
    """An address without its query, which may hold a secret."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def region_of(vendor: Vendor, url: str) -> str | None:
    """The region that an address is in, a workspace's own included; None where it is none of the vendor's hosts."""
    host = urlsplit(url).hostname or ""
    for region, base in vendor.hosts.items():
        if host == urlsplit(base).hostname:
            return region
    for region, name in vendor.workspace_regions.items():
        after = (vendor.workspace_host or "").format(workspace="", region=name)
        if host.endswith(urlsplit(after).netloc):
            return region
    return None


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


def read_key(source: str, *, file: bool) -> str:
    """The key that a variable or a file holds.

    Raises:
        JobError: it is missing or empty, or holds what no header can carry.
    """
    if file:
        place, hint = f"endpoint.api_key_file: {source}", "write the key into it"
        try:
            key = Path(source).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(f"{place}: can't be read: {error}") from None
    else:
        place, hint = f"endpoint.api_key_env: {source}", f"set it, for example: export {source}=sk-..."
        key = os.environ.get(source, "").strip()
    if not key:
        raise JobError(f"{place}: no API key there; {hint}")
    if not key.isascii() or not key.isprintable():
        raise JobError(f"{place}: the API key holds a character that no HTTP header can carry")
    return key


def refuse_alike(keys: Mapping[str, str]) -> None:
    """See that no key comes twice, because it would be sent twice its quota.

    Raises:
        JobError: one does; names both of its sources.
    """
    first: dict[str, str] = {}
    for source, key in keys.items():
        if first.setdefault(key, source) != source:
            raise JobError(
                f"endpoint: {first[key]} and {source} hold the same API key, which would be sent twice its quota; "
                "name one of them"
            )
