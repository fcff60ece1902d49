"""A small Hugging Face Hub on the loopback: accounts, repositories and commits, as `HfApi` asks for them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

ACCOUNTS: dict[str, dict[str, Any]] = {
    "hf_write": {"role": "write"},
    "hf_read": {"role": "read", "displayName": "for reading"},
    "hf_fine": {
        "role": "fineGrained",
        "fineGrained": {"scoped": [{"entity": {"type": "user", "name": "ann"}, "permissions": ["repo.write"]}]},
    },
    "hf_narrow": {
        "role": "fineGrained",
        "fineGrained": {"scoped": [{"entity": {"type": "user", "name": "ann"}, "permissions": ["repo.content.read"]}]},
    },
}
ORGANIZATIONS = [{"name": "studio", "roleInOrg": "write"}, {"name": "museum", "roleInOrg": "read"}]


@dataclass
class Hub:
    """What the server holds, and what it was asked."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failing: str = ""
    """Part of a path that is answered with 403."""

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON, or bytes, of one request."""
        self.requests.append(f"{method} {path}")
        if self.failing and self.failing in path:
            return 403, {"error": "quota exceeded"}
        if path.startswith("/blobs/"):
            self.blobs[path.removeprefix("/blobs/")] = body
            return 200, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if token not in ACCOUNTS:
            return 401, {"error": "Invalid credentials in Authorization header"}
        if path == "/api/whoami-v2":
            return 200, {"name": "ann", "orgs": ORGANIZATIONS, "auth": {"accessToken": ACCOUNTS[token]}}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        return self._repository(path, body)

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted.get('organization') or 'ann'}/{wanted['name']}"
        answer = {"url": f"{self.url}/{name}", "name": name, "id": "1"}
        if name in self.repositories:
            return 409, answer
        self.repositories[name] = {}
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.private.add(name)
        return 200, answer

    def _repository(self, path: str, body: bytes) -> tuple[int, Any]:
        match = re.match(r"(?:/api/models)?/([^/]+/[^/.]+(?:\.\d)?)(?:\.git/info/lfs/objects)?(/.*)?$", path)
        name, rest = (match[1], match[2] or "") if match else ("", "")
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        files = self.repositories[name]
        if rest in ("", "/revision/main"):
            return 200, {
                "id": name,
                "sha": "a" * 40,
                "private": name in self.private,
                "siblings": [{"rfilename": f} for f in files],
            }
        if rest == "/auth-check/write":
            return 200, {}
        if rest.startswith("/resolve/main/"):
            file = rest.removeprefix("/resolve/main/")
            return (200, files[file]) if file in files else (404, {"error": "Entry not found"})
        if rest == "/preupload/main":
            asked = json.loads(body)["files"]
            return 200, {"files": [self._mode(files, file["path"]) for file in asked]}
        if rest == "/batch":
            return 200, {"objects": [self._upload(one) for one in json.loads(body)["objects"]]}
        assert rest == "/commit/main", path
        return self._commit(name, [json.loads(line) for line in body.splitlines()])

    def _mode(self, files: dict[str, bytes], path: str) -> dict[str, Any]:
        is_large, data = path.endswith((".safetensors", ".pt")), files.get(path)
        oid = None
        if data is not None:
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            oid = hashlib.sha256(data).hexdigest() if is_large else git
        return {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False, "oid": oid}

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.blobs:
            return wanted
        return {**wanted, "actions": {"upload": {"href": f"{self.url}/blobs/{wanted['oid']}"}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        files = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
        url = f"{self.url}/{name}/commit/abc"
        return 200, {"success": True, "commitUrl": url, "commitOid": "a" * 40, "hookOutput": ""}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            status, found = hub.answer(self.command, self.path.partition("?")[0], token, body)
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header(
                "Content-Type", "application/octet-stream" if isinstance(found, bytes) else "application/json"
            )
            if isinstance(found, bytes):
                self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", "a" * 40)
            elif status == 404:
                code = "EntryNotFound" if "Entry" in found["error"] else "RepoNotFound"
                self.send_header("X-Error-Code", code)
            if status in (401, 403, 404):
                self.send_header("X-Error-Message", found["error"])
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = do_request

        def log_message(self, *arguments: Any) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def hub_of_the_client(patch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """A hub that `huggingface_hub` takes for the real one, logged in as ann; `folder` holds what it caches."""
    with serve_hub() as hub:
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub_cache"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no_token"))
        patch.setenv("HF_TOKEN", "hf_write")
        yield hub
