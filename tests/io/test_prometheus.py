"""What a Prometheus that misbehaves costs: a loopback server that answers as each test says."""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from wattzoo.errors import MetricsUnreachable, ObservationError, QueryRejected
from wattzoo.observe.prometheus import PrometheusReader
from wattzoo.settings import PrometheusSettings

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Records requests and answers by `answer`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, list[str]], str | None]] = []
        self.answer: Answer = reply({"status": "success", "data": {"resultType": "vector", "result": []}})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                form = parse_qs(self.rfile.read(length).decode())
                outer.requests.append((self.path, form, self.headers.get("Authorization")))
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that leaves early is what some tests are about

        self.http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/prefix/"


def reply(payload: object, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join(2)


@pytest.fixture
def reader(server: Server) -> Iterator[PrometheusReader]:
    reader = PrometheusReader(PrometheusSettings(server.url, timeout_seconds=0.4, max_body_bytes=10_000))
    yield reader
    reader.close()


def test_the_query_is_sent_in_the_body_with_a_time_limit(server: Server, reader: PrometheusReader) -> None:
    assert reader.query("up", 1234.5678).result == []
    assert server.requests == [
        ("/prefix/api/v1/query", {"query": ["up"], "timeout": ["0.4s"], "time": ["1234.568"]}, None)
    ]


def test_warnings_are_kept_with_their_own_answer(server: Server, reader: PrometheusReader) -> None:
    data = {"resultType": "vector", "result": [{"metric": {}, "values": []}]}
    server.answer = reply({"status": "success", "data": data, "warnings": ["truncated"]})
    answer = reader.query("up")
    assert (answer.warnings, len(answer.result)) == (("truncated",), 1)
    server.answer = reply({"status": "success", "data": data})
    assert reader.query("up").warnings == ()


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (reply({"status": "error", "error": "parse error"}, 400), QueryRejected, "parse error"),
        (reply({"status": "error", "error": "too many samples"}, 422), QueryRejected, "too many samples"),
        (reply(b"busy", 503), MetricsUnreachable, "503: busy"),
        (reply(b"", 302, Location="http://169.254.169.254/"), MetricsUnreachable, "302"),
        (reply(b"<html>", 200), MetricsUnreachable, "<html>"),
        (reply({"status": "success", "data": None}), MetricsUnreachable, "200"),
        (reply(b"x" * 20_000), QueryRejected, "larger than 10000 bytes"),
    ],
)
def test_bad_answers(
    server: Server, reader: PrometheusReader, answer: Answer, error: type[ObservationError], words: str
) -> None:
    server.answer = answer
    with pytest.raises(error, match=words):
        reader.query("up")
    assert len(server.requests) == 1  # neither retried nor redirected


def test_an_answer_that_never_ends_is_left_at_the_deadline(server: Server, reader: PrometheusReader) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "9000")
        handler.end_headers()
        for _ in range(100):
            try:
                handler.wfile.write(b"x" * 10)
                handler.wfile.flush()
            except OSError:
                return
            time.sleep(0.02)

    server.answer = drip
    started = time.monotonic()
    with pytest.raises(MetricsUnreachable):
        reader.query("up")
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("size", [1, 9_000, 200_000])
def test_compressed_answers_in_chunks_count_by_their_decoded_size(
    server: Server, reader: PrometheusReader, size: int
) -> None:
    data = {
        "resultType": "vector",
        "result": [{"metric": {"a": random.Random(1).randbytes(size // 2).hex()}, "values": []}],
    }

    def chunked(handler: BaseHTTPRequestHandler) -> None:
        body = gzip.compress(json.dumps({"status": "success", "data": data}).encode())
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        for start in range(0, len(body), 50):
            part = body[start : start + 50]
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    server.answer = chunked
    if size < 10_000:
        assert reader.query("up").result == data["result"]
    else:
        with pytest.raises(QueryRejected, match="larger"):
            reader.query("up")


def test_nobody_listens() -> None:
    reader = PrometheusReader(PrometheusSettings("http://127.0.0.1:1", timeout_seconds=0.4))
    with pytest.raises(MetricsUnreachable):
        reader.query("up")
    reader.close()


def test_the_token_is_read_for_each_query(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    reader = PrometheusReader(PrometheusSettings(server.url, token_file=token))
    with pytest.raises(MetricsUnreachable, match="token file"):
        reader.query("up")
    for text in ("one\n", "two\n"):
        token.write_text(text)
        reader.query("up")
    assert [request[2] for request in server.requests] == ["Bearer one", "Bearer two"]
    reader.close()
