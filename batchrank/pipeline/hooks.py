"""Tells others of a run's end, as the job's ``on`` says: runs a command, or sends the summary to an address.

It comes last, when the output, the ledger and the folder's lock are free, so that a command may use them. Whatever
becomes of it is logged, and changes neither the exit code nor the output.
"""

import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Awaitable
from contextlib import suppress
from typing import IO, Any, Literal
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from batchrank.errors import BatchrankError, ExitCode, JobError
from batchrank.job.config import Job
from batchrank.job.running import TOLD, is_address
from batchrank.job.secrets import Secrets, secrets_of
from batchrank.pipeline.report import Report
from batchrank.version import __version__
from batchrank.write.folder import summary_bytes

log = logging.getLogger(__name__)
Event = Literal["complete", "failed", "gate"]
COMMAND_SECONDS = 600.0
"""Seconds that a command has: it may copy the output elsewhere."""
POST_SECONDS = 30.0
"""Seconds that an address has."""
_MOST_BYTES = 64 * 1024
"""Bytes of a command's output that are logged."""


def event_of(code: ExitCode) -> Event:
    """What a run that ended with a code is to the job's ``on``."""
    if code is ExitCode.GATE:
        return "gate"
    return "complete" if code.complete else "failed"


async def telling(job: Job, running: Awaitable[Report]) -> Report:
    """Wait for a run, tell of its end, and end as it did."""
    try:
        result = await running
    except Exception as error:
        await anyio.to_thread.run_sync(tell, job, error)
        raise
    await anyio.to_thread.run_sync(tell, job, result)
    return result


def tell(job: Job, end: Report | Exception) -> None:
    """Tell of a run's end where the job says so, and wait for whoever is told; nothing is raised.

    Args:
        job: the job.
        end: what came of the run, or what it raised.
    """
    code = end.exit_code if isinstance(end, Report | BatchrankError) else ExitCode.FAILED
    event = event_of(ExitCode(code))
    hook: str | tuple[str, ...] | None = getattr(job.on, event)
    if hook is None:
        return
    secrets = secrets_of(job)
    summary = end.data if isinstance(end, Report) else _bare(job, code, secrets.hide(str(end)))
    data = summary_bytes(summary | {"event": event})
    try:
        if is_address(hook):
            problem = anyio.run(_post, str(hook), data)
        else:
            problem = _run(hook, data, _environment(job, event, summary), event, secrets)
    except Exception as error:  # a run that is over must not fail by what follows it
        problem = repr(error)
    if problem:
        log.error("on.%s: %s; the run's own end stands", event, secrets.hide(problem))


def _bare(job: Job, code: int, reason: str) -> dict[str, Any]:
    """What there is to say of a run that has no summary."""
    return {"name": job.name, "complete": False, "exit_code": code, "reason": reason, "job": job.public()}


def _environment(job: Job, event: Event, summary: dict[str, Any]) -> dict[str, str]:
    """This process's environment without the API key, and with what the command is most likely to ask for."""
    told = {
        "EVENT": event,
        "JOB": job.name or "job",
        "EXIT_CODE": str(int(summary["exit_code"])),
        "FOLDER": "" if job.output_folder is None else str(job.output_folder.absolute()),
        "REASON": summary["reason"] or "",
    }
    hidden, named = _keys(job), job.key_variables
    kept = {name: value for name, value in os.environ.items() if name not in named and value not in hidden}
    return kept | {f"{TOLD}{name}": value.replace("\0", "") for name, value in told.items()}


def _keys(job: Job) -> set[str | None]:
    """Those of the job's keys that can be read."""
    found = set[str | None]()
    for source in job.key_sources:
        with suppress(JobError):
            found.add(job.api_key(source))
    return found


def _run(
    hook: str | tuple[str, ...], data: bytes, environ: dict[str, str], event: Event, secrets: Secrets
) -> str | None:
    """Run a command to its end; what went wrong, or None. Files carry its streams, so that nothing waits for a pipe."""
    words = ["/bin/sh", "-c", hook] if isinstance(hook, str) else list(hook)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(data)
        given.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 the user's own command
                words, stdin=given, stdout=said, stderr=said, env=environ, start_new_session=True
            )
        except OSError as error:
            return f"the command can't be run: {error.strerror or error}"
        problem = None
        try:
            code = process.wait(COMMAND_SECONDS)
            if code:
                problem = f"the command ended with {_ending(code)}"
        except subprocess.TimeoutExpired:
            problem = f"the command took longer than {COMMAND_SECONDS:g} s and was stopped"
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        _log_output(said, event, secrets)
    return problem


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"


def _log_output(said: IO[bytes], event: Event, secrets: Secrets) -> None:
    said.seek(0)
    text = said.read(_MOST_BYTES).decode("utf-8", "replace")
    for line in text.splitlines():
        log.info("on.%s: %s", event, secrets.hide(line))
    if said.read(1):
        log.info("on.%s: (the rest of its output is left out)", event)


async def _post(url: str, data: bytes) -> str | None:
    """Send the summary; what went wrong, or None. Of the address only the host is told: its path may be a secret."""
    import aiohttp

    host = urlsplit(url).hostname
    headers = {"Content-Type": "application/json", "User-Agent": f"batchrank/{__version__}"}
    limit = aiohttp.ClientTimeout(total=POST_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(trust_env=True, timeout=limit) as session,
            session.post(url, data=data, headers=headers, allow_redirects=False) as answer,
        ):
            return None if answer.status < 300 else f"{host} answered {answer.status}"
    except TimeoutError:
        return f"{host} did not answer within {POST_SECONDS:g} s"
    except (aiohttp.ClientError, OSError) as error:
        return f"{host} can't be reached: {type(error).__name__}"
