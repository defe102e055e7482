"""A server that speaks the Hugging Face hub's protocol as far as huggingface_hub's uploads need it.

It keeps repositories in memory and is strict: a commit that names an object that was never sent, or that
follows a commit which is not the newest, is refused, as by the real one. It speaks LFS (in one piece, or
in parts) and refuses Xet.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

KEY = "hf_writer"
READ_KEY = "hf_reader"
KNOWN_LICENCES = ("other", "cc-by-nc-sa-4.0", "apache-2.0")
LFS_SUFFIXES = (".parquet", ".safetensors")


@dataclass
class Repository:
    """One repository: its files at the newest commit, and how it got there."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.parquet filter=lfs\n"})
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    titles: dict[str, str] = field(default_factory=dict)
    """Of every commit but the first."""
    branches: list[str] = field(default_factory=lambda: ["main"])
    was_public_while_empty: bool = False

    @property
    def head(self) -> str:
        return self.commits[-1]

    def at(self, commit: str) -> dict[str, bytes]:
        """The files then: a repository that others have written to keeps only how it is now."""
        is_first_of_ours = commit == self.commits[0] and self.titles
        return {".gitattributes": b""} if is_first_of_ours else self.files

    def told(self, commit: str) -> dict[str, Any]:
        """A commit as the hub lists it."""
        title = self.titles.get(commit, "initial commit")
        date = "2026-01-01T00:00:00.000Z"
        return {"id": commit, "authors": [{"user": "org"}], "date": date, "title": title, "message": ""}


class Hub:
    """Runs while the context lasts; what it was told and given is in its fields."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        """By "models/OWNER/NAME" or "datasets/OWNER/NAME"."""
        self.objects: dict[str, bytes] = {}
        self.received: list[str] = []
        """The oid of every object that was sent whole."""
        self.part_bytes = 0
        """0 = an object is taken in one piece."""
        self.during_upload: Callable[[int], None] = lambda number: None
        """Called when half of an object has come, with the number of the object."""
        self.refuse_commit_of = ""
        self.parts: dict[str, dict[int, bytes]] = {}
        self.lock = threading.Lock()
        self.num_uploads = 0
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, key: str = KEY) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": key, "HF_HUB_DISABLE_XET": "1", "no_proxy": "127.0.0.1"}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/lfs/"):  # what a bucket would answer: its addresses are signed, and need no key
            self._take_object(path)
            return
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if key not in (KEY, READ_KEY) and path != "/api/validate-yaml":
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif path == "/api/whoami-v2":
            role = "write" if key == KEY else "read"
            self._answer({"name": "org", "type": "user", "auth": {"accessToken": {"role": role}}})
        elif path == "/api/validate-yaml":
            self._validate(json.loads(self._body()))
        elif path == "/api/repos/create":
            self._create(json.loads(self._body()))
        elif path.startswith("/api/"):
            _, _, kind, owner, name, *rest = path.split("/")
            self._of_repository(f"{kind}/{owner}/{name}", rest)
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(self._body()))
        else:
            self._resolve(path)

    def _of_repository(self, name: str, rest: list[str]) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif rest[:1] in ([], ["revision"]):
            siblings = [{"rfilename": path} for path in repository.files]
            identity = {"id": name.partition("/")[2], "sha": repository.head, "private": repository.private}
            self._answer({**identity, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})
        elif rest[0] in ("tree", "commits", "refs"):
            self._answer(_history(repository, *rest))
        elif rest[0] == "preupload":
            self._answer({"files": [_preupload(repository, f) for f in json.loads(self._body())["files"]]})
        elif rest[0] == "commit":
            self._commit(name, repository, [json.loads(line) for line in self._body().splitlines()])
        elif rest[0] == "settings":
            repository.private = json.loads(self._body())["visibility"] == "private"
            self._note_openness(repository)
            self._answer({})
        else:
            self._refuse(404, "", f"this hub has no {rest[0]}")

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('type', 'model')}s/{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != "org":
            self._refuse(403, "", "you may not create repositories for this owner")
        elif name in self.hub.repositories:
            self._refuse(409, "", "You already created this repo")
        else:
            repository = Repository(private=wanted.get("visibility") == "private")
            self._note_openness(repository)
            self.hub.repositories[name] = repository
            self._answer({"url": f"{self.hub.url}/{name}"})

    def _note_openness(self, repository: Repository) -> None:
        empty = set(repository.files) == {".gitattributes"}
        repository.was_public_while_empty |= empty and not repository.private

    def _validate(self, wanted: dict[str, Any]) -> None:
        licence = wanted["content"].partition("license: ")[2].split("\n")[0]
        if licence in KNOWN_LICENCES:
            self._answer({"errors": [], "warnings": []})
        else:
            self._answer({"errors": [{"message": f'"license" must not be {licence}'}], "warnings": []}, 400)

    def _batch(self, wanted: dict[str, Any]) -> None:
        self._answer({"transfer": "basic", "objects": [self._lfs_action(o) for o in wanted["objects"]]})

    def _lfs_action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        oid, size = wanted["oid"], wanted["size"]
        if oid in self.hub.objects:
            return {"oid": oid, "size": size}
        href, header = f"{self.hub.url}/lfs/{oid}", {}
        if self.hub.part_bytes:
            count = -(-size // self.hub.part_bytes)
            header = {str(part + 1): f"{href}/{part + 1}" for part in range(count)}
            header["chunk_size"] = str(self.hub.part_bytes)
        verify = {"href": f"{self.hub.url}/lfs/{oid}/verify"}
        return {
            "oid": oid,
            "size": size,
            "actions": {"upload": {"href": href, "header": header}, "verify": verify},
        }

    def _take_object(self, path: str) -> None:
        oid, *rest = path.removeprefix("/lfs/").split("/")
        if rest == ["verify"]:
            asked = json.loads(self._body())
            there = len(self.hub.objects.get(asked["oid"], b"")) == asked["size"]
            self._answer({}) if there else self._refuse(404, "", "no such object")
        elif rest:
            self.hub.parts.setdefault(oid, {})[int(rest[0])] = self._content()
            self._answer({}, headers={"ETag": f"etag-{rest[0]}"})
        elif self.command == "POST":
            self._body()
            self._keep(oid, b"".join(part for _, part in sorted(self.hub.parts[oid].items())))
        else:
            self._keep(oid, self._content())

    def _keep(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            self._refuse(400, "", "the object is not the one announced")
            return
        self.hub.objects[oid] = content
        self.hub.received.append(oid)
        self._answer({})

    def _content(self) -> bytes:
        """The body of an upload; a test may do something when half of it is there."""
        length = int(self.headers["Content-Length"])
        half = self.rfile.read(length // 2)
        with self.hub.lock:
            self.hub.num_uploads += 1
            number = self.hub.num_uploads
        self.hub.during_upload(number)
        return half + self.rfile.read(length - len(half))

    def _commit(self, name: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
        header, *operations = lines
        if name.startswith(self.hub.refuse_commit_of or "none"):
            self._refuse(400, "", "this commit is refused")
            return
        if header["value"].get("parentCommit", repository.head) != repository.head:
            self._refuse(412, "", "A commit has happened since")
            return
        files = dict(repository.files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "deletedFile":
                del files[value["path"]]
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif value["oid"] in self.hub.objects:
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                self._refuse(400, "", f"the object of {value['path']} was never sent")
                return
        repository.files = files
        repository.commits.append(
            hashlib.sha1(repr(sorted(files)).encode() + repository.head.encode()).hexdigest()
        )
        repository.titles[repository.head] = header["value"]["summary"]
        self._answer({"commitUrl": f"{self.hub.url}/{name}/commit/x", "commitOid": repository.head})

    def _resolve(self, path: str) -> None:
        repository_path, _, rest = path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        name = repository_path if repository_path.startswith("datasets/") else f"models/{repository_path}"
        repository = self.hub.repositories.get(name)
        if repository is None or file not in repository.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        content = repository.files[file]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": revision}
        self._send(200, content, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            blocks = []
            while size := int(self.rfile.readline(), 16):
                blocks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(blocks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        # What was not read would be taken for the next request of this connection.
        self.close_connection = True
        headers = {"X-Error-Message": message, "Connection": "close"} | (
            {"X-Error-Code": code} if code else {}
        )
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _history(repository: Repository, asked: str, revision: str = "") -> object:
    if asked == "tree":
        return [_tree_entry(path, content) for path, content in repository.at(revision).items()]
    if asked == "commits":
        return [repository.told(commit) for commit in reversed(repository.commits)]
    refs = [{"name": name, "ref": name, "targetCommit": repository.head} for name in repository.branches]
    return {"branches": refs, "converts": [], "tags": [], "pullRequests": []}


def _tree_entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": _git_hash(content)}


def _preupload(repository: Repository, wanted: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if wanted["path"].endswith(LFS_SUFFIXES) else "regular"
    there = repository.files.get(wanted["path"])
    oid = None
    if there is not None:
        oid = hashlib.sha256(there).hexdigest() if mode == "lfs" else _git_hash(there)
    return {"path": wanted["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
