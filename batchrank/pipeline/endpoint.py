"""Puts together what asks a job's endpoint: wire format, encoder, servers, and how many requests each may have."""

import logging
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batchrank.data import Request
from batchrank.job.config import Job
from batchrank.job.secrets import secrets_of
from batchrank.models import Vendor, vendor
from batchrank.pipeline.workers import background_task
from batchrank.send.concurrency import ConcurrencyLimit
from batchrank.send.connections import Key, connections, open_files, tls_context
from batchrank.send.encoder import Encoder
from batchrank.send.fleet import Fleet, Replica, addresses, names
from batchrank.send.keyring import Keyring
from batchrank.send.limiter import Limiter
from batchrank.send.rate import RateLimiter
from batchrank.wire import Codec, tailored

if TYPE_CHECKING:
    from batchrank.send.transport import Http

log = logging.getLogger(__name__)


def codec(job: Job) -> Codec:
    """The wire format that a job's endpoint speaks.

    Raises:
        JobError: it can't say what the job asks for.
    """
    found = tailored(job.wire, job.template, job.endpoint.body)
    found.body(Request(job.card.name, "query", ["document"], job.said_instruct, job.fps))
    return found


def encoder(job: Job, wire: Codec, *, legacy: bool) -> Encoder:
    """What makes a job's requests, and the keys by which the ledger knows them; no API key is needed.

    ``legacy`` tells whether the ledger holds entries by the keys of an older batchrank.
    """
    return Encoder(
        wire,
        scope=f"{job.answers_identity}\n{job.wire}\n",
        old_scope=f"{job.url}\n{job.wire}\n" if legacy else None,
        model=job.card.name,
        instruct=job.said_instruct,
        fps=job.fps,
    )


def api_keys(job: Job) -> list[Key]:
    """A job's API keys; one without a value where none is needed.

    Raises:
        JobError: one can't be read, or comes twice.
    """
    if job.emulated:
        return [Key("emulator")]
    again = bool(job.endpoint.api_key_file)
    found = zip(job.api_keys().items(), job.key_names, strict=True)
    read = [Key(key, name, partial(job.api_key, source) if again else None) for (source, key), name in found]
    return read or [Key(None)]


def limiter(job: Job, keys: Sequence[Key], before: Iterable[tuple[float, int, str]]) -> RateLimiter:
    """What keeps the quota of each of a job's keys.

    Args:
        job: the job.
        keys: its keys.
        before: what an earlier process sent: seconds ago, tokens, and the name of its key. What was sent by a key that
            has another name now counts for each of them.
    """
    card, names = job.card, {key.name for key in keys}
    limiters = {
        key: Limiter(
            rpm=card.rpm,
            tpm=card.tpm,
            share=job.rate.part,
            before=[(ago, tokens) for ago, tokens, by in before if by == key.name or by not in names],
        )
        for key in keys
    }
    return Keyring(limiters) if len(limiters) > 1 else limiters[keys[0]]


@asynccontextmanager
async def rate_limiter(
    job: Job, keys: Sequence[Key], before: Sequence[tuple[float, int, str]]
) -> AsyncIterator[RateLimiter]:
    """What admits a job's requests for the length of the block: its own quota, or what others leave of an account's.

    Raises:
        JobError: another job of the account says another quota, or other keys.
    """
    make = partial(limiter, job, keys)
    if job.rate.account is None:
        yield make(before)
        return
    from batchrank.send.account import Account
    from batchrank.send.account_files import AccountFiles
    from batchrank.send.holder import Terms

    names = tuple(sorted(key.name for key in keys)) if len(keys) > 1 else ()
    terms = Terms(float(job.card.rpm), float(job.card.tpm), names)
    who = {"job": job.name, "pid": os.getpid()}
    account = Account(AccountFiles(job.rate.account), terms, keys, make, before, who)
    async with background_task(account.serve):
        await account.joined()
        yield account


def endpoint(job: Job, url: str, key: Key | str | None) -> "tuple[Http, Codec]":
    """What asks a job's endpoint, at an address and with a key, and the wire format that it speaks.

    Raises:
        JobError: a certificate or the environment's proxy can't be used, or the format can't say what the job asks for.
    """
    from batchrank.send.transport import Http  # aiohttp, which rankers do without

    own = job.endpoint
    wire = codec(job)
    proxy = job.proxy(url=url)
    files = own.ca_file, own.client_cert, own.client_key
    secure = url.startswith("https:") or (proxy or "").startswith("https:")
    # For the system's certificates aiohttp has a context already; reading them again takes 30 ms of each start.
    trusted = any(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    return Http(
        url,
        wire,
        key=key,
        auth=own.auth,
        headers=own.headers,
        other_url=None if job.emulated else _other_url(vendor(job.card.vendor), job.wire, url),
        proxy=proxy,
        tls=tls_context(ca_file=own.ca_file, client_cert=own.client_cert, client_key=own.client_key)
        if any(files) or (secure and trusted)
        else None,
        secrets=secrets_of(job),
        timeout=own.timeout,
    ), wire


def places(job: Job) -> tuple[list[ConcurrencyLimit], int | None]:
    """How many requests each server of a job may have in flight, and all together where the job says a number.

    They are no more than the system lets this process have connections.
    """
    servers, wanted = len(job.urls), job.rate.concurrency
    room = connections(open_files(), each=(2 if job.emulated else 1) * servers)
    if not isinstance(wanted, int):
        return [ConcurrencyLimit(None, room=room) for _ in range(servers)], None
    most = int(min(wanted, room * servers))
    return [ConcurrencyLimit(wanted, room=room) for _ in range(servers)], most


def fleet(job: Job, urls: Sequence[str], key: Key) -> tuple[Fleet, Codec]:
    """The servers of a job, at their addresses, and the wire format that they speak.

    Raises:
        JobError: as ``endpoint`` does.
    """
    each, most = places(job)
    asked = [endpoint(job, url, key) for url in urls]
    wanted = job.rate.concurrency
    if most is not None and isinstance(wanted, int) and most < wanted:
        log.warning(
            "rate.concurrency: at most %d instead of %d, as this process may not open more connections (ulimit -n)",
            most, wanted,
        )  # fmt: skip
    known = zip(asked, each, names(urls), addresses(job.urls), strict=True)
    replicas = [
        Replica(http, limit, name, url=url, key_name=key.name) for (http, _), limit, name, url in known
    ]
    return Fleet(replicas, most), asked[0][1]


def _other_url(known: Vendor, wire: str, url: str) -> str | None:
    """The same host's address by the path that the vendor's other kind of host has; None where there is none.

    Which kind of host has which path is documented, and reported to be otherwise: the server has the last word.
    """
    paths = (known.paths.get(wire), known.workspace_paths.get(wire))
    parts = urlsplit(url)
    if None in paths or parts.path not in paths:
        return None
    (other,) = {path for path in paths if path} - {parts.path}
    return parts._replace(path=other).geturl()
