"""Defines where a job's requests are sent, and with which key."""

from typing import Annotated, Any

from pydantic import Field, JsonValue, field_validator, model_validator

from batchrank.job.endpoint import check_json, http_address, http_addresses, proxy_address, refuse_key
from batchrank.job.sections import Section
from batchrank.models import Template, Wire

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Workspace(Section):
    """A workspace of Model Studio, which has a host of its own."""

    workspace: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
    region: str | None = None


class Endpoint(Section):
    """Where requests are sent, and with which key. What may hold a secret is not in its ``repr``.

    Attributes:
        url: the full address; None takes the model's; ``emulator`` starts one inside this process.
        urls: instead, the addresses of several servers of the same model; their order decides nothing.
        identity: what answers are remembered under; None takes wire, model and region, so not the address.
        api_key_env: the name of the environment variable that holds the key; None takes the vendor's own. Several
            names are several keys, each with a quota of its own.
        api_key_file: a file that holds the key, instead, or several; read again when the server refuses the key.
        auth: how the key is sent: ``bearer``, in a header of this name, or ``none``.
        body: fields added to every request; mappings go into those that are there already.
        template: the model's own prompt around query and documents; None takes the model's.
        proxy: the address of a proxy, ``none`` for none; None takes what the environment says.
        ca_file: certificates that are trusted instead of the system's.
        client_cert: the certificate that this client shows, and perhaps its key.
        client_key: the certificate's key, where it is a file of its own.
        timeout: seconds one attempt may take.
    """

    url: Annotated[str | None, Field(repr=False)] = None
    urls: Annotated[tuple[str, ...], Field(repr=False)] = ()
    identity: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")] | None = None
    wire: Wire | None = None
    region: str | Workspace | None = None
    api_key_env: Variable | Annotated[tuple[Variable, ...], Field(min_length=1)] | None = None
    api_key_file: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    auth: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")] = "bearer"
    headers: dict[str, str] = Field(default={}, repr=False)
    body: dict[str, JsonValue] = Field(default={}, repr=False)
    template: Template | None = None
    proxy: Annotated[str | None, Field(repr=False)] = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60

    @field_validator("api_key_env", "api_key_file")
    @classmethod
    def _different(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("a name comes twice; each key has a quota of its own, so name each once")
        return value

    @field_validator("url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return value if value is None or value == "emulator" else http_address(value)

    @field_validator("urls")
    @classmethod
    def _urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return http_addresses(value)

    @field_validator("body")
    @classmethod
    def _numbers(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        check_json(value)
        return value

    @field_validator("proxy")
    @classmethod
    def _proxy_address(cls, value: str | None) -> str | None:
        if value is None or value == "none":
            return value
        return proxy_address(value)

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _no_key(cls, value: Any) -> Any:
        for name in value if isinstance(value, list | tuple) else [value]:
            if isinstance(name, str):
                refuse_key(name)
        return value

    @model_validator(mode="after")
    def _together(self) -> "Endpoint":
        if self.url is not None and self.urls:
            raise ValueError("url and urls exclude each other; write all addresses in endpoint.urls")
        if self.client_key and not self.client_cert:
            raise ValueError("client_key needs endpoint.client_cert, the certificate that it is the key of")
        if self.auth == "none" and (self.api_key_env or self.api_key_file):
            raise ValueError(
                "auth: none sends no key, so api_key_env and api_key_file have no use; remove one or the other"
            )
        return self
