"""Makes the TLS context that the endpoint is reached with: whose certificates are trusted, and which one is shown."""

import os
import ssl
from pathlib import Path

from batchrank.errors import JobError


def tls_context(
    *, ca_file: str | None = None, client_cert: str | None = None, client_key: str | None = None
) -> ssl.SSLContext:
    """The context; the server's certificate is always verified.

    Args:
        ca_file: what is trusted instead of the system's certificates, or of those that ``SSL_CERT_FILE`` names.
        client_cert: the certificate to show to a server that asks for one.
        client_key: its key, where it isn't in the same file.

    Raises:
        JobError: a file can't be used; names the key.
    """
    _present("environment, SSL_CERT_FILE", None if ca_file else os.environ.get("SSL_CERT_FILE"))
    _present("endpoint.ca_file", ca_file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise JobError(f"endpoint.ca_file: {ca_file} holds no certificate in PEM form: {error}") from None
    context.set_alpn_protocols(["http/1.1"])
    if client_cert is not None:
        _present("endpoint.client_cert", client_cert)
        _present("endpoint.client_key", client_key)
        _show(context, client_cert, client_key)
    return context


def _present(source: str, path: str | None) -> None:
    """A file that isn't there would be passed over in silence, or without its name."""
    if path is None:
        return
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise JobError(f"{source}: {path} can't be read: {error.strerror}") from None


class _EncryptedError(Exception):
    """Raised instead of asking for a password on the terminal."""


def _show(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    def password() -> str:
        raise _EncryptedError

    try:
        context.load_cert_chain(certificate, key, password)
    except _EncryptedError:
        raise JobError(
            f"endpoint.client_key: the key in {key or certificate} is encrypted; write it without a password "
            "(openssl pkey -in KEY -out PLAIN), readable by you alone"
        ) from None
    except OSError as error:
        hint = "" if key else ", or name its key in endpoint.client_key"
        raise JobError(
            f"endpoint.client_cert: {certificate} and its key can't be used: {error}; write both as PEM{hint}"
        ) from None
