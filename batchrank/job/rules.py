"""Checks what the keys of a job mean together; what one key may be alone, its section says."""

from typing import TYPE_CHECKING

from batchrank.errors import JobError
from batchrank.job.endpoint import check_body
from batchrank.models import vendor

if TYPE_CHECKING:
    from batchrank.job.config import Job


def require_consistent(job: "Job") -> None:
    """See that a job can be meant as it is written.

    Raises:
        JobError: two of its keys contradict each other, or its model; the message says which, and what to do.
    """
    card = job.card
    accepted = {*card.parameters, *(["instruct"] if job.template and job.template.instructs else [])}
    for parameter in ("instruct", "fps"):
        if getattr(job, parameter) is not None and parameter not in accepted:
            raise JobError(f"{parameter}: {card.name} does not accept it; remove the key")
    _check_request(job)
    if job.gate and job.output and job.output.path == "-":
        raise JobError("gate: standard output can't be compared with anything; set output.path to a folder")
    out = job.output
    if out and out.path == "-" and "format" in out.model_fields_set and out.format != "jsonl":
        raise JobError("output.format: standard output carries JSON lines only; remove the key")
    if job.limits.long_documents == "split" and job.limits.passage_overlap >= card.item_tokens:
        raise JobError(f"limits.passage_overlap: must be below limits.item_tokens, {card.item_tokens}")
    if job.endpoint.url is None and not job.endpoint.urls:
        vendor(card.vendor).url(job.wire, job.region)
        _check_region(job)
    if job.endpoint.identity is None and len(job.regions) > 1:
        raise JobError(
            "endpoint.urls: they are not all in one region of the vendor's, so their answers don't count for each "
            "other's; name hosts of one region, or set endpoint.identity if they answer alike"
        )


def _check_request(job: "Job") -> None:
    """See that what the endpoint's keys make of a request can be sent."""
    check_body(job.endpoint.body, job.wire)
    if job.endpoint.auth not in ("bearer", "none") and not job.key_sources and not job.emulated:
        raise JobError(
            f"endpoint.auth: there is no key to send in {job.endpoint.auth}; set endpoint.api_key_env or "
            "endpoint.api_key_file"
        )
    if job.template is None:
        return
    if job.card.media:
        raise JobError(
            f"endpoint.template: {job.card.name} takes images and videos, and a prompt goes around texts only; "
            "remove the key"
        )
    if job.template.instructs and job.said_instruct is None:
        raise JobError("instruct: required, because endpoint.template has {instruct}; set it")


def _check_region(job: "Job") -> None:
    card, region = job.card, job.region or vendor(job.card.vendor).default_region
    if card.regions and region not in card.regions:
        where = " or ".join(card.regions)
        raise JobError(
            f"endpoint.region: {card.name} is served in {where} only, not in {region}; set endpoint.region: "
            f"{card.regions[0]} with a key of that region, choose another model, or set endpoint.url to a server "
            "that has it"
        )
