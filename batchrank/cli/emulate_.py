"""``batchrank emulate``: every switch of the emulator as an option."""

import inspect
import signal
import sys
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

import anyio
import typer

from batchrank.cli.terminal import say
from batchrank.emulator.app import Emulator, run_forever
from batchrank.emulator.faults import FAULTS
from batchrank.emulator.settings import Settings, described
from batchrank.errors import JobError

_NOT_OPTIONS = {"cards"}


def emulate(**options: Any) -> None:
    """Serve the rerank APIs on loopback until interrupted: documented limits, errors and quotas, faults on demand.

    Point a job at it with endpoint.url: http://127.0.0.1:PORT/compatible-api/v1/reranks and any API key.
    """
    host, port = options.pop("host"), options.pop("port")
    settings = Settings(**{name: _value(name, value) for name, value in options.items() if value is not None})
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the loop turns into an orderly end
    try:
        anyio.run(lambda: run_forever(settings, host, port, ready=_announce))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _announce(emulator: Emulator) -> None:
    say(f"listening at {emulator.url}/compatible-api/v1/reranks")
    sys.stdout.flush()


def _value(name: str, value: Any) -> Any:
    """An option's value as the settings want it: name=value pairs become a mapping."""
    kind = _HINTS[name]
    if _is_mapping(kind):
        return dict(_pair(name, item, typing.get_args(kind)) for item in value)
    return tuple(value) if isinstance(value, list) else value


def _pair(name: str, item: str, kinds: tuple[type, ...]) -> tuple[Any, Any]:
    key, equals, value = item.rpartition("=")
    if not equals:
        raise JobError(f"--{name}: {item!r} is not a name=value pair")
    try:
        return kinds[0](key), kinds[1](value)
    except ValueError:
        raise JobError(f"--{name}: {item!r}: {value!r} is not a number") from None


def _is_mapping(kind: Any) -> bool:
    return typing.get_origin(kind) is Mapping


def _option(name: str, kind: Any, default: Any, text: str) -> inspect.Parameter:
    if _is_mapping(kind) or typing.get_origin(kind) is tuple:
        annotation: Any = list[str] | None
        default = None
    elif isinstance(kind, types.UnionType):
        annotation = kind
    else:
        annotation = kind
    if name == "faults":
        text += f" (repeatable, name=probability); names: {', '.join(sorted(FAULTS))}"
    elif _is_mapping(kind):
        text += " (repeatable, key=value)"
    option = typer.Option(f"--{name.replace('_', '-')}", help=text)
    if kind is bool:
        option = typer.Option(f"--{name.replace('_', '-')}/--no-{name.replace('_', '-')}", help=text)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option]
    )


_HINTS = typing.get_type_hints(Settings)


def _signature() -> inspect.Signature:
    texts, defaults = described(), Settings()
    parameters = [
        _option("host", str, "127.0.0.1", "the address to listen on"),
        _option("port", int, 8080, "the port to listen on; 0 takes a free one"),
    ]
    for name, kind in _HINTS.items():
        if name not in _NOT_OPTIONS:
            parameters.append(_option(name, kind, getattr(defaults, name), texts[name]))
    return inspect.Signature(parameters)


emulate.__signature__ = _signature()  # type: ignore[attr-defined]  # typer reads the options from here
