"""Reads what a server says when it gives no answer: an error in any of its shapes, or a page meant for people.

Every API and gateway words its errors in fields of its own, also inside an HTTP 200; what is said is what tells a user
what to do, so no text is ever lost because it stood under an unusual name.
"""

import html
import re
from typing import Any

_MESSAGE_LIMIT = 500
_VISIBLE = 200
"""Characters of a page that are shown: enough to tell whose it is, and what it says."""
_FINE = {"", "0", "200", "201", "ok", "true", "none", "null", "success", "succeeded", "successful"}
"""Codes of gateways that mean that all is well."""
_FAILED = {"error", "fail", "failed", "failure", "false"}
_CODES = ("code", "error_code", "errorcode", "err_code", "errcode", "statuscode", "status_code", "status")
_TEXTS = (
    "message", "msg", "error_msg", "error_message", "errormessage", "err_msg", "errmsg", "detail", "details", "errors",
    "error", "error_description", "description", "reason", "title",
)  # fmt: skip
_DEPTH, _LISTED = 4, 5
"""How deep texts are looked for, and how many of a list are shown."""
_RESULTS = {"results", "output", "data", "rankings"}


def error(data: object) -> tuple[str, str, str] | None:
    """Code, message and request id of an error in any of its shapes; None when the value isn't an error.

    In order, the first that applies:
    1. ``error``: an object with ``code`` or ``type`` and a text, or a text, or true;
    2. a code that isn't a fine one: ``code``, ``error_code``, ``status``, ``statusCode``, ... with a text beside it;
    3. ``success``: false;
    4. ``errors``, or a text alone, ``message`` or ``detail``, where there are no results and nothing says all is well.
    """
    if not isinstance(data, dict):
        return None
    fields = {str(key).lower(): value for key, value in data.items()}
    request_id = _text(fields.get("request_id") or fields.get("requestid") or fields.get("id"))
    nested = fields.get("error")
    if isinstance(nested, dict):
        inner = {str(key).lower(): value for key, value in nested.items()}
        code, message = _code(inner) or _text(inner.get("type")), _words(inner)
        if code or (message and not _fine(inner)):
            return code, message or _words(fields), request_id or _text(inner.get("request_id"))
    elif nested is True or (isinstance(nested, str | list) and _flat(nested)):
        return *_named(fields), request_id
    code, message = _code(fields), _words(fields)
    failed = fields.get("success") is False or str(fields.get("status")).lower() in _FAILED
    if code or failed:
        return code, message, request_id
    alone = message and not _fine(fields) and not _RESULTS & fields.keys()
    return ("", message, request_id) if alone or fields.get("errors") else None


def _named(fields: dict[str, Any]) -> tuple[str, str]:
    """Code and text where ``error`` is no object: a name or a text of its own, or just true."""
    name, message = _flat(fields["error"]), _words(fields)
    code = _code(fields) or _text(fields.get("error_type"))
    if message == name or not name:
        return code, message
    return (code, f"{name}: {message}") if " " in name or code else (name, message)


def said(data: object) -> str:
    """Whatever text a decoded body has for people; empty when it has none."""
    if isinstance(data, dict):
        return _words({str(key).lower(): value for key, value in data.items()})
    return data[:_MESSAGE_LIMIT] if isinstance(data, str) else ""


def visible(body: bytes) -> str:
    """The beginning of what a reader would see of a page: a firewall's or a gateway's, without its tags."""
    text = body[: 64 * 1024].decode(errors="replace")
    text = re.sub(r"(?is)<(script|style)\b.*?(?:</\1\s*>|$)|<!--.*?(?:-->|$)|<[a-z/!?][^<>]*>", " ", text)
    shown = " ".join(html.unescape(text).split())[:_VISIBLE]
    return "".join(letter if letter.isprintable() else " " for letter in shown)


def _code(fields: dict[str, Any]) -> str:
    """The first code that isn't a fine one; a word that only says that it failed is none."""
    for name in _CODES:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            code = _text(value)
            if code.lower() not in _FINE | _FAILED and (name != "status" or code.isdigit()):
                return code
    return ""


def _fine(fields: dict[str, Any]) -> bool:
    """Whether something says that all is well."""
    told = [fields[name] for name in ("code", "status", "success") if fields.get(name) is not None]
    return any(str(value).lower() in _FINE - {""} for value in told)


def _words(fields: dict[str, Any], depth: int = _DEPTH) -> str:
    """The first text of an error, wherever it stands."""
    return next((text for name in _TEXTS if (text := _flat(fields.get(name), depth))), "")


def _flat(value: object, depth: int = _DEPTH) -> str:
    """A text as it is; a list of them, or of a validator's findings (where and what, not the value), in one line."""
    if isinstance(value, str):
        return _text(value.strip())
    if isinstance(value, list) and depth:
        return _text("; ".join(filter(None, (_flat(inner, depth - 1) for inner in value[:_LISTED]))))
    if not isinstance(value, dict) or not depth:
        return ""
    fields = {str(key).lower(): inner for key, inner in value.items()}
    place = fields.get("loc")
    where = ".".join(map(str, place)) + ": " if isinstance(place, list) else ""
    return _text(where + _words(fields, depth - 1))


def _text(value: object) -> str:
    return "" if value is None else str(value)[:_MESSAGE_LIMIT]
