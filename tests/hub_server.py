"""A Hub on this machine: the part of its protocol that uploads, downloads and `load_dataset` use, in memory.

Large files are served from `localhost`, everything else from `127.0.0.1`: the Hub's own large files come from
another host too, which must not be sent a token.
"""

import base64
import hashlib
import json
import re
import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITER, READER = "hf_writer", "hf_reader"
OWNER = "somebody"
LARGE_SUFFIXES = (".safetensors", ".parquet", ".bin", ".png")
# Files of more bytes are uploaded in parts of so many.
PART_BYTES = 50_000
ID = r"(?P<repo>[\w.-]+/[\w.-]+)"
REPO = rf"(?P<kind>models|datasets)/{ID}"
FILES = rf"/(?P<kind>datasets/)?{ID}"


@dataclass
class Refusal(Exception):
    """An answer that is an error."""

    status: int
    message: str
    code: str = ""


@dataclass
class Repository:
    """Commits, the last one last: name, message, and the content of each file."""

    private: bool
    commits: list[tuple[str, str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, message: str, files: dict[str, bytes]) -> str:
        listing = sorted((path, hashlib.sha1(content).hexdigest()) for path, content in files.items())
        oid = hashlib.sha1(json.dumps([len(self.commits), message, listing]).encode()).hexdigest()
        self.commits.append((oid, message, files))
        return oid

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        for oid, _, files in reversed(self.commits):
            if revision in ("main", "HEAD", oid):
                return oid, files
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


class Hub(ThreadingHTTPServer):
    """The server and what it holds.

    Attributes:
        repositories (`dict[tuple[str, str], Repository]`): by kind, "models" or "datasets", and id.
        requests (`list[tuple[str, str, dict]]`): method, path and headers (in lower case) of all requests.
        failures (`dict[str, int]`): answers all requests whose path contains the key with this status.
        dropped (`set[str]`): ends of paths of large files whose next download breaks off half way.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.lock = Lock()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[tuple[str, str], bytes] = {}
        self.parts: dict[tuple[str, str, int], bytes] = {}
        self.requests: list[tuple[str, str, dict]] = []
        self.failures: dict[str, int] = {}
        self.dropped: set[str] = set()

    def files(self, repo: str, kind: str = "models") -> dict[str, bytes]:
        """What the repository's last commit holds."""
        return self.repositories[kind, repo].commits[-1][2]

    def messages(self, repo: str, kind: str = "models") -> list[str]:
        """The messages of its commits, but for the first one, which makes the repository."""
        return [message for _, message, _ in self.repositories[kind, repo].commits[1:]]


@contextmanager
def run_hub():
    """A `Hub` that answers until the context ends."""
    hub = Hub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def is_large(path: str) -> bool:
    return path.endswith(LARGE_SUFFIXES)


def describe_file(path: str, content: bytes) -> dict:
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    described = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if is_large(path):
        sha256 = hashlib.sha256(content).hexdigest()
        described["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return described


def check_card(content: str) -> list[str]:
    """What the Hub would find wrong with a card's metadata."""
    block = re.match(r"---\n(.*?)\n---\n", content, flags=re.DOTALL)
    data = yaml.safe_load(block[1]) if block else {}
    errors = []
    for name in ("tags", "datasets", "task_categories", "size_categories"):
        if not all(isinstance(value, str) for value in data.get(name) or []):
            errors.append(f'"{name}" must be an array of strings')
    results = [result for model in data.get("model-index", []) for result in model["results"]]
    for number, result in enumerate(results):
        for part, name in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
            if not isinstance(result.get(part, {}).get(name), str):
                errors.append(f'"model-index[0].results[{number}].{part}.{name}" must be a string')
        for metric in result["metrics"]:
            if not isinstance(metric.get("type"), str) or "value" not in metric:
                errors.append(f'"model-index[0].results[{number}].metrics" need a type and a value')
    return errors


class Handler(BaseHTTPRequestHandler):
    """Routes a request to the method whose pattern its path matches."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        pass

    def answer(self):
        self.body = self.read_body()
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            self.server.requests.append((self.command, unquote(url.path), headers))
        try:
            for part, status in self.server.failures.items():
                if part in url.path:
                    raise Refusal(status, "Internal Error - we're working hard to fix this")
            method = "GET" if self.command == "HEAD" else self.command
            for wanted, pattern, handle in ROUTES:
                match = re.fullmatch(pattern, unquote(url.path))
                if wanted == method and match:
                    handle(self, **match.groupdict())
                    return
            raise Refusal(404, f"no route for {self.command} {url.path}")
        except Refusal as refusal:
            extra = {"X-Error-Message": refusal.message, "X-Error-Code": refusal.code}
            self.send(json.dumps({"error": refusal.message}).encode(), refusal.status, extra)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, content):
        self.send(json.dumps(content).encode(), headers={"Content-Type": "application/json"})

    def token(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        if token not in (None, WRITER, READER):
            raise Refusal(401, "Invalid credentials in Authorization header")
        return token

    def find(self, kind: str | None, repo: str, is_write: bool = False) -> Repository:
        found = self.server.repositories.get(((kind or "models").strip("/"), repo))
        token = self.token()
        if found is None or (found.private and token is None):
            raise Refusal(401 if token is None else 404, "Repository not found", "RepoNotFound")
        if is_write and token != WRITER:
            raise Refusal(401 if token is None else 403, "You don't have the rights to write here")
        return found

    def who_am_i(self):
        if self.token() is None:
            raise Refusal(401, "Invalid username or password.")
        self.send_json({"type": "user", "name": OWNER, "orgs": []})

    def create(self):
        wanted = json.loads(self.body)
        kind = f"{wanted.get('type', 'model')}s"
        repo = f"{wanted.get('organization') or OWNER}/{wanted['name']}"
        if self.token() is None:
            raise Refusal(401, "Invalid username or password.")
        if self.token() != WRITER or not repo.startswith(f"{OWNER}/"):
            raise Refusal(403, f"You don't have the rights to create a {kind[:-1]} under this namespace")
        url = f"{self.server.endpoint}/{'datasets/' if kind == 'datasets' else ''}{repo}"
        if (kind, repo) in self.server.repositories:
            self.send(json.dumps({"error": "You already created this repo", "url": url}).encode(), 409)
            return
        created = Repository(private=wanted.get("visibility") == "private")
        created.commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.server.repositories[kind, repo] = created
        self.send_json({"url": url, "name": repo})

    def validate(self):
        errors = [{"message": message} for message in check_card(json.loads(self.body)["content"])]
        self.send(json.dumps({"errors": errors, "warnings": []}).encode(), 400 if errors else 200)

    def preupload(self, kind, repo, revision):
        _, files = self.find(kind, repo, is_write=True).at(revision)
        answers, wanted = [], json.loads(self.body)
        ignored = wanted.get("gitIgnore", files.get(".gitignore", b"").decode()).split()
        for file in wanted["files"]:
            path = file["path"]
            answers.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if is_large(path) else "regular",
                    "shouldIgnore": any(fnmatch(path.split("/")[-1], pattern) for pattern in ignored),
                }
            )
            if path in files:
                described = describe_file(path, files[path])
                answers[-1]["oid"] = described.get("lfs", described)["oid"]
        self.send_json({"files": answers})

    def lfs_batch(self, kind, repo):
        self.find(kind, repo, is_write=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            href, header = f"{self.server.endpoint}/lfs/{repo}/{wanted['oid']}", {}
            if wanted["size"] > PART_BYTES:
                header = {"chunk_size": str(PART_BYTES)}
                for number in range(1, -(-wanted["size"] // PART_BYTES) + 1):
                    header[str(number)] = f"{href}/{number}"
            objects.append(dict(wanted))
            if (repo, wanted["oid"]) not in self.server.large:
                objects[-1]["actions"] = {
                    "upload": {"href": href, "header": header},
                    "verify": {"href": f"{self.server.endpoint}/verify/{repo}"},
                }
        self.send_json({"transfer": "multipart", "objects": objects})

    def lfs_put(self, repo, oid, number=None):
        if number is None:
            self.keep_large(repo, oid, self.body)
        else:
            self.server.parts[repo, oid, int(number)] = self.body
        self.send(b"", headers={"ETag": hashlib.md5(self.body).hexdigest()})

    def lfs_complete(self, repo, oid):
        parts = sorted(json.loads(self.body)["parts"], key=lambda part: part["partNumber"])
        content = [self.server.parts.pop((repo, oid, part["partNumber"])) for part in parts]
        self.keep_large(repo, oid, b"".join(content))
        self.send_json({})

    def keep_large(self, repo: str, oid: str, content: bytes):
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(422, "the content does not have this sha256")
        self.server.large[repo, oid] = content

    def verify(self, repo):
        wanted = json.loads(self.body)
        if len(self.server.large.get((repo, wanted["oid"]), b"")) != wanted["size"]:
            raise Refusal(404, "there is no such object")
        self.send_json({})

    def commit(self, kind, repo, revision):
        found = self.find(kind, repo, is_write=True)
        head, before = found.at(revision)
        files, message = dict(before), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if (repo, value["oid"]) not in self.server.large:
                    raise Refusal(400, f"{value['path']}: the LFS object was not uploaded")
                files[value["path"]] = self.server.large[repo, value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise Refusal(400, f"unknown operation {key}")
        oid = found.commit(message, files)
        self.send_json({"commitOid": oid, "commitUrl": f"{self.server.endpoint}/{repo}/commit/{oid}"})

    def info(self, kind, repo, revision="main"):
        found = self.find(kind, repo)
        oid, files = found.at(revision or "main")
        siblings = [{"rfilename": path} for path in sorted(files)]
        self.send_json({"id": repo, "sha": oid, "private": found.private, "siblings": siblings, "tags": []})

    def tree(self, kind, repo, revision, folder=""):
        _, files = self.find(kind, repo).at(revision)
        is_recursive = parse_qs(urlsplit(self.path).query).get("recursive") in (["true"], ["True"])
        prefix = f"{folder}/" if folder else ""
        inside = {path: content for path, content in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
        entries = {}
        for path, content in sorted(inside.items()):
            *parents, name = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parents) + 1 if is_recursive else min(len(parents), 1) + 1):
                parent = prefix + "/".join(parents[:depth])
                entries[parent] = {"type": "directory", "path": parent, "size": 0, "oid": "0" * 40}
            if is_recursive or not parents:
                entries[path] = describe_file(path, content)
        self.send_json(list(entries.values()))

    def paths_info(self, kind, repo, revision):
        _, files = self.find(kind, repo).at(revision)
        asked = parse_qs(self.body.decode()).get("paths", [])
        folders = {path for path in asked if any(name.startswith(f"{path}/") for name in files)}
        entries = [describe_file(path, files[path]) for path in asked if path in files]
        entries += [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders]
        self.send_json(entries)

    def resolve(self, kind, repo, revision, path):
        oid, files = self.find(kind, repo).at(revision)
        commit = {"X-Repo-Commit": oid}
        if path not in files:
            missing = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", **commit}
            self.send(b"Entry not found", 404, missing)
            return
        described = describe_file(path, files[path])
        if not is_large(path):
            self.send_range(files[path], {"ETag": f'"{described["oid"]}"', **commit})
            return
        sha256, size = described["lfs"]["oid"], described["size"]
        linked = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(size), **commit}
        location = f"http://localhost:{self.server.server_port}/cdn/{repo}/{sha256}/{path}"
        self.send(b"", 302, {"Location": location, **linked})

    def cdn(self, repo, oid, path):
        if "Authorization" in self.headers:
            raise Refusal(400, "a token was sent to another host than the Hub")
        with self.server.lock:
            is_dropped = path in self.server.dropped and self.command == "GET"
            self.server.dropped.discard(path if is_dropped else "")
        content = self.server.large[repo, oid]
        if not is_dropped:
            self.send_range(content, {"ETag": f'"{oid}"'})
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def send_range(self, content: bytes, headers: dict[str, str]):
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.send(content, headers={"Accept-Ranges": "bytes", **headers})
            return
        start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        where = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        self.send(content[start : end + 1], 206, {**where, **headers})


ROUTES = [
    ("GET", "/api/whoami-v2", Handler.who_am_i),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", rf"/api/{REPO}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", rf"/api/{REPO}/commit/(?P<revision>[^/]+)", Handler.commit),
    ("POST", rf"/api/{REPO}/paths-info/(?P<revision>[^/]+)", Handler.paths_info),
    ("GET", rf"/api/{REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", Handler.tree),
    ("GET", rf"/api/{REPO}(/revision/(?P<revision>[^/]+))?", Handler.info),
    ("POST", rf"{FILES}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", rf"/lfs/{ID}/(?P<oid>\w{{64}})(/(?P<number>\d+))?", Handler.lfs_put),
    ("POST", rf"/lfs/{ID}/(?P<oid>\w{{64}})", Handler.lfs_complete),
    ("POST", rf"/verify/{ID}", Handler.verify),
    ("GET", rf"{FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
    ("GET", rf"/cdn/{ID}/(?P<oid>\w{{64}})/(?P<path>.+)", Handler.cdn),
]
