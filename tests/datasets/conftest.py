"""What the tests of sources share: small pictures, and one way to read a source."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from PIL import Image

from musicon.datasets import command
from musicon.datasets.records import Rejects
from musicon.datasets.sources import base
from musicon.datasets.sources.base import SourceData

Draw = Callable[..., Path]
Reader = Callable[..., tuple[SourceData, Rejects]]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """``draw("violin/a.jpg", width, height)`` writes a picture of its own below ``tmp_path``."""
    made: list[Path] = []

    def picture(name: str, width: int = 40, height: int = 30, seed: int | None = None) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(len(made) if seed is None else seed)
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(file, "PNG" if file.suffix == ".png" else "JPEG")
        made.append(file)
        return file

    return picture


@pytest.fixture
def read_source() -> Reader:
    """``read_source("coco", path, "--only", "lute")`` -> what the source read, and its rejects."""

    def read(name: str, *arguments: object) -> tuple[SourceData, Rejects]:
        module = base.load(name)
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        rejects = Rejects()
        data = module.read(parser.parse_args([str(a) for a in arguments]), rejects)
        return data, rejects

    return read


@dataclass
class Asked:
    """One request that the server got."""

    path: str
    query: dict[str, str]
    headers: Message

    @property
    def conditional(self) -> bool:
        return "If-None-Match" in self.headers or "If-Modified-Since" in self.headers


@dataclass
class Answer:
    """What the server says; ``cut`` sends so many bytes of the body, then hangs up."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


class Website:
    """A real HTTP server on this machine that says what a test tells it to.

    ``pages`` holds, by path, an ``Answer``, or a function from the request to one. Files with an
    ETag answer If-None-Match with 304 and Range (under If-Range) with 206, as servers do.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Answer | Callable[[Asked], Answer]] = {}
        self.asked: list[Asked] = []
        website = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = Asked(parts.path, dict(parse_qsl(parts.query)), self.headers)
                website.asked.append(asked)
                page = website.pages.get(parts.path, Answer(b"no such page", 404))
                answer = page(asked) if callable(page) else page
                website.send(self, asked, answer)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:  # a client that hung up, as some tests do
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def send(self, handler: BaseHTTPRequestHandler, asked: Asked, answer: Answer) -> None:
        body, status, headers = answer.body, answer.status, dict(answer.headers)
        etag = headers.get("ETag")
        begin = re.match(r"bytes=(\d+)-$", asked.headers.get("Range", ""))
        if etag and status == 200 and asked.headers.get("If-None-Match") == etag:
            body, status = b"", 304
        elif etag and begin and asked.headers.get("If-Range") == etag:
            start = int(begin[1])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = (body[start:], 206) if start < len(body) else (b"", 416)
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[:answer.cut])
        if answer.cut is not None:
            handler.close_connection = True

    def file(self, path: str, body: bytes, media_type: str = "image/jpeg") -> str:
        """A file with an ETag; its address."""
        tag = hashlib.sha256(body).hexdigest()[:12]
        self.pages[path] = Answer(body, headers={"ETag": f'"{tag}"', "Content-Type": media_type})
        return self.url + path

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def website() -> Iterator[Website]:
    server = Website()
    yield server
    server.close()


@pytest.fixture(scope="session")
def run() -> Callable[..., int]:
    """``run("mimo", folder, "--out", out)``: tools/prepare_data.py, as a person runs it."""
    file = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"
    spec = importlib.util.spec_from_file_location("prepare_data_run", file)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return lambda *arguments: command.run(tool.main, tool.parser(), [str(a) for a in arguments])
