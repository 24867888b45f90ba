"""A server on this machine that speaks the part of Cytomine's API that its client asks for.

Answers have the keys that a Cytomine 2024 server sends. Every request's signature is checked as
the API's documentation has it: HMAC-SHA1 of method, content type and date under the private key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

PUBLIC, PRIVATE = "0f1e-public", "9d8c-private"
DRAWN = "be.cytomine.domain.ontology.UserAnnotation"


def pixels(width: int, height: int) -> Image.Image:
    """A picture whose red falls from left to right and green from top to bottom."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], -1).astype(np.uint8))


class Cytomine(ThreadingHTTPServer):
    """The server and what is stored on it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.images: dict[int, dict[str, Any]] = {}
        self.terms = [{"id": 31, "name": "Lute", "ontology": 7},
                      {"id": 32, "name": "Violin", "ontology": 7}]
        self.users = [{"id": 51, "username": "ann"}, {"id": 52, "username": "bob"}]
        self.annotations: list[dict[str, Any]] = []
        self.properties: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.failures = 0
        self.refused: dict[int, int] = {}  # picture -> status of the answer
        self.next_id = 9000

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add_image(self, number: int, width: int, height: int, **more: Any) -> None:
        self.images[number] = {
            "class": "be.cytomine.domain.image.ImageInstance", "id": number, "project": 5,
            "baseImage": number + 1, "instanceFilename": f"Painting {number}.jpg",
            "originalFilename": f"{number}.jpg", "width": width, "height": height,
            "reviewed": False, "numberOfAnnotations": 0, **more}

    def draw(self, image: int, wkt: str, terms: list[int], user: int = 51,
             **more: Any) -> dict[str, Any]:
        self.next_id += 1
        row = {"class": DRAWN, "id": self.next_id, "image": image, "project": 5, "user": user,
               "location": wkt, "term": terms, "created": "1700000000000",
               "userByTerm": [{"id": 1, "term": t, "user": [user]} for t in terms], **more}
        self.annotations.append(row)
        return row


class _Handler(BaseHTTPRequestHandler):
    server: Cytomine

    def log_message(self, *_: Any) -> None:
        return

    def _signed(self) -> bool:
        text = f"{self.command}\n\n{self.headers.get('content-type', '')}\n{self.headers['date']}"
        digest = hmac.new(PRIVATE.encode(), text.encode(), hashlib.sha1).digest()
        wanted = f"CYTOMINE {PUBLIC}:{base64.b64encode(digest).decode()}"
        return self.headers.get("authorization") == wanted

    def _say(self, value: Any, status: int = 200, kind: str = "application/json") -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _list(self, rows: list[dict[str, Any]]) -> None:
        self._say({"collection": rows, "offset": 0, "perPage": len(rows), "size": len(rows),
                   "totalPages": 1})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}
        if path == "/server/ping":
            self._say({"alive": True, "authenticated": False, "version": "2024.2"})
            return
        if not self._signed():
            self._say({"success": False, "message": "Full authentication is required"}, 401)
            return
        self.server.asked.append(path)
        picture = re.fullmatch(r"/api/imageinstance/(\d+)/(thumb\.jpg|download|window-[\d-]+\.jpg)",
                               path)
        lists = {"/api/project.json": [{"id": 5, "name": "Instruments", "ontology": 7}],
                 "/api/project/5/term.json": self.server.terms,
                 "/api/project/5/user.json": self.server.users,
                 "/api/project/5/imageinstance.json": list(self.server.images.values())}
        if path == "/api/user/current.json":
            self._say({"id": 53, "username": "musicon"})
        elif path in lists:
            self._list(lists[path])
        elif path == "/api/annotation.json":
            reviewed = query.get("reviewed") == "True"
            users = {int(u) for u in query.get("users", "").split(",") if u}
            self._list([{k: v for k, v in row.items() if k != "location" or "showWKT" in query}
                        for row in self.server.annotations
                        if bool(row.get("parentIdent")) == reviewed
                        and (not users or row["user"] in users)])
        elif picture:
            self._picture(int(picture[1]), picture[2], query)
        else:
            self._say({"message": "not found", "errors": "not found"}, 404)

    def _picture(self, number: int, what: str, query: dict[str, str]) -> None:
        if self.server.failures:
            self.server.failures -= 1
            self._say({"message": "busy", "errors": "busy"}, 503)
            return
        if number in self.server.refused:
            self._say({"errors": "no right"}, self.server.refused[number])
            return
        row = self.server.images[number]
        image = pixels(row["width"], row["height"])
        if what.startswith("window"):
            x, y, w, h = (int(v) for v in what[7:-4].split("-"))
            image = image.crop((x, y, x + w, y + h))
        if "maxSize" in query and what != "download":
            image.thumbnail((int(query["maxSize"]), int(query["maxSize"])))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=95)
        self._say(stream.getvalue(), kind="image/jpeg")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._signed():
            self._say({"success": False, "message": "Full authentication is required"}, 401)
            return
        row = json.loads(body)
        if self.path == "/api/annotation.json":
            made = self.server.draw(row["image"], row["location"], row["term"], user=53)
            self._say({"message": "Annotation added", "annotation": made})
        elif self.path == "/api/term.json":
            self.server.terms.append({"id": 40, "name": row["name"], "ontology": row["ontology"]})
            self._say({"term": self.server.terms[-1]})
        elif match := re.fullmatch(rf"/api/domain/{DRAWN}/(\d+)/property.json", self.path):
            self.server.properties.append({"annotation": int(match[1]), **row})
            self._say({"property": {"id": 1, **row}})
        else:
            self._say({"message": "not found", "errors": "not found"}, 404)


@contextmanager
def running() -> Iterator[Cytomine]:
    """A server of its own, gone at the end."""
    server = Cytomine()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
