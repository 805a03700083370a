"""What a request asks, whichever API it comes by: types checked and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from batchrank.emulator.content import Content, Medium
from batchrank.emulator.rejections import REJECTIONS, RejectedError

_INVALID = REJECTIONS["400-parameter"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks.

    Attributes:
        model: the model's name; ``-`` where the API has none.
        query: a text or an image.
        documents: texts, images and videos.
        top_n: most results wanted, None for all.
        instruct: the instruction, perhaps empty.
        return_documents: whether results should carry their documents.
        fps: the share of a video's frames wanted.
        objects: whether query or documents came as objects, which text models don't take.
        raw: whether logits are wanted instead of probabilities.
    """

    model: str
    query: Content
    documents: list[Content]
    top_n: int | None
    instruct: str
    return_documents: bool
    fps: float = 1.0
    objects: bool = False
    raw: bool = False


def parsed(body: bytes) -> dict[str, Any]:
    """The body's JSON object, or a refusal."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RejectedError(_INVALID) from None
    if not isinstance(data, dict):
        raise RejectedError(_INVALID)
    return data


def invalid(message: str) -> RejectedError:
    """The refusal of a wrong parameter."""
    return RejectedError(_INVALID.saying(message))


def asked(
    content: Mapping[str, Any], parameters: Mapping[str, Any], *, at: str = "", objects: bool = False
) -> Asked:
    """Check the types of a request's parts; ``at`` is what the path of query and documents begins with.

    Raises:
        RejectedError: a part is of the wrong type or outside its range.
    """
    model, query, documents = content.get("model"), content.get("query"), content.get("documents")
    if not isinstance(model, str) or not model:
        raise invalid("Model not exist: model")
    if not isinstance(query, str | Medium):
        raise invalid(f"query must be a string: {at}query")
    if not isinstance(documents, list) or not all(isinstance(d, str | Medium) for d in documents):
        raise invalid(f"documents must be a list of strings: {at}documents")
    top_n, instruct, fps = parameters.get("top_n"), parameters.get("instruct"), parameters.get("fps")
    if top_n is not None and (type(top_n) is not int or top_n < 1):
        raise invalid("top_n must be an integer greater than 0: parameters.top_n")
    if instruct is not None and not isinstance(instruct, str):
        raise invalid("instruct must be a string: parameters.instruct")
    if fps is not None and (type(fps) not in (int, float) or not 0 <= fps <= 1):
        raise invalid("fps must be a number in [0, 1]: parameters.fps")
    return Asked(
        model=model,
        query=query,
        documents=documents,
        top_n=top_n,
        instruct=instruct or "",
        return_documents=parameters.get("return_documents") is True,
        fps=1.0 if fps is None else float(fps),
        objects=objects,
        raw=parameters.get("raw") is True,
    )
