"""A hub of datasets on loopback that answers as Hugging Face's does, from folders; its own client talks to it."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

SHA = "0" * 40


@asynccontextmanager
async def hub(root: Path) -> AsyncIterator[str]:
    """Serve ``root/OWNER/NAME`` as datasets; yields the hub's address."""

    def folder(request: web.Request) -> Path:
        found = root / request.match_info["owner"] / request.match_info["name"]
        if not found.is_dir():
            raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound"})
        return found

    def entry(path: Path, base: Path) -> dict[str, Any]:
        name = path.relative_to(base).as_posix()
        if path.is_dir():
            return {"type": "directory", "oid": SHA, "size": 0, "path": name}
        return {
            "type": "file",
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
            "path": name,
        }

    async def info(request: web.Request) -> web.Response:
        found = folder(request)
        files = [{"rfilename": p.relative_to(found).as_posix()} for p in found.rglob("*") if p.is_file()]
        name = f"{found.parent.name}/{found.name}"
        return web.json_response(
            {"_id": "1", "id": name, "sha": SHA, "private": False, "gated": False, "disabled": False, "siblings": files,
             "downloads": 0, "likes": 0, "tags": [], "lastModified": "2024-01-01T00:00:00.000Z"}
        )  # fmt: skip

    async def tree(request: web.Request) -> web.Response:
        base = folder(request)
        at = base / request.match_info.get("path", "").strip("/")
        if not at.is_dir():
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound"})
        deep = request.query.get("recursive", "").lower() == "true"
        found = sorted(at.rglob("*") if deep else at.iterdir())
        return web.json_response([entry(path, base) for path in found])

    async def paths(request: web.Request) -> web.Response:
        base, form = folder(request), await request.post()
        wanted = [str(value) for key, value in form.items() if key == "paths"]
        return web.json_response([entry(base / name, base) for name in wanted if (base / name).exists()])

    async def resolve(request: web.Request) -> web.StreamResponse:
        file = folder(request) / request.match_info["path"]
        if not file.is_file():
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound"})
        return web.FileResponse(file, headers={"X-Repo-Commit": SHA, "ETag": f'"{SHA}"'})

    app = web.Application()
    api = "/api/datasets/{owner}/{name}"
    app.router.add_get(api, info)
    app.router.add_get(f"{api}/revision/{{revision}}", info)
    app.router.add_get(f"{api}/tree/{{revision}}", tree)
    app.router.add_get(f"{api}/tree/{{revision}}/{{path:.*}}", tree)
    app.router.add_post(f"{api}/paths-info/{{revision}}", paths)
    app.router.add_get("/datasets/{owner}/{name}/resolve/{revision}/{path:.*}", resolve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
