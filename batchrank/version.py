"""Holds the version, in one place, and tells which versions of what it needs are installed."""

__version__ = "0.1.0"
_LIBRARIES = ("aiohttp", "anyio", "gigatoken", "numpy", "orjson", "pyarrow", "dashscope")


def versions() -> dict[str, str]:
    """The versions of batchrank, Python and the libraries that decide what a run does."""
    import platform
    from importlib.metadata import PackageNotFoundError, distribution

    found = {"batchrank": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:  # parsing all the metadata, which hold READMEs, takes 10 ms
        try:
            text = distribution(name).read_text("METADATA") or ""
            found[name] = text.partition("\nVersion:")[2].split()[0]
        except (PackageNotFoundError, IndexError):
            continue
    return found
