#!/usr/bin/env python3
"""The cache of GitHub Actions, as far as a client sees it: both versions of its protocol, entries that never change.

GitHub runs the real one for its own jobs only. Version 2 is that of `CacheService` in the results service: protobuf over
Twirp, and bytes that go to a signed URL as to Azure's blob storage. Version 1 is JSON, and is what GitHub Enterprise has.
"""
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

PORT, TOKEN = int(sys.argv[1]), sys.argv[2]
SERVICE = "/twirp/github.actions.results.api.v1.CacheService/"

lock = threading.Lock()
# (version, key) -> its number; number -> its bytes when it is committed; number -> what came so far.
entries, committed, parts = {}, {}, {}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    """The fields of a protobuf message that has integers and strings in it."""
    out, at = {}, 0
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 2:
            value, at = data[at : at + value], at + value
        out[tag >> 3] = value
    return out


def message(ok, text=""):
    """`ok` is field 1, a string is field 2."""
    text = text.encode()
    length = bytes([len(text) & 127 | 128, len(text) >> 7]) if len(text) > 127 else bytes([len(text)])
    return (b"\x08\x01" if ok else b"") + (b"\x12" + length + text if text else b"")


class Cache(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        with lock:
            if url.path.startswith("/store/"):
                if query.get("sig") != ["signed"]:
                    return self.answer(403)
                number = int(url.path.rsplit("/", 1)[1])
                return self.download(number) if self.command == "GET" else self.upload(number, query, body)
            if url.path.startswith("/entries"):
                return self.forget(url.path.removeprefix("/entries").removeprefix("/"))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.answer(401)
            if url.path.startswith(SERVICE):
                return self.version2(url.path.removeprefix(SERVICE), fields(body))
            return self.version1(url.path.removeprefix("/_apis/artifactcache/"), query, body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def forget(self, key):
        """Lists the entries, or drops one, as GitHub does of its own accord."""
        if self.command == "DELETE":
            for entry in [entry for entry in entries if entry[1] == key]:
                committed.pop(entries.pop(entry), None)
        self.answer(200, "".join(f"{key}\n" for _, key in entries).encode(), "text/plain")

    def home(self):
        """Where the client finds this: it may come through a proxy."""
        return f"http://{self.headers['Host']}"

    def reserve(self, key):
        if key in entries:
            return None
        entries[key] = len(parts) + 1
        parts[entries[key]] = {}
        return entries[key]

    def version2(self, method, message_in):
        version = 4 if method != "CreateCacheEntry" else 3
        key = (message_in[version].decode(), message_in[2].decode())
        assert re.fullmatch("[0-9a-f]{64}", key[0]), key
        answer = lambda *values: self.answer(200, message(*values), "application/protobuf")
        if method == "CreateCacheEntry":
            number = self.reserve(key)
            if number is None:
                return self.answer(409, b'{"code":"already_exists","msg":"cache entry already exists"}')
            return answer(True, f"{self.home()}/store/{number}?sig=signed")
        number = entries.get(key)
        if method == "FinalizeCacheEntryUpload":
            whole = parts[number].get("whole")
            assert whole is not None and len(whole) == message_in.get(3, 0), "it is not whole"
            committed[number] = whole
            return answer(True)
        if number not in committed:
            return answer(False)
        return answer(True, f"{self.home()}/store/{number}?sig=signed")

    def version1(self, path, query, body):
        if path == "cache":
            number = entries.get((query["version"][0], unquote(query["keys"][0])))
            if number not in committed:
                return self.answer(204)
            return self.answer(200, json.dumps({"archiveLocation": f"{self.home()}/store/{number}?sig=signed"}).encode())
        if path == "caches":
            asked = json.loads(body)
            number = self.reserve((asked["version"], asked["key"]))
            if number is None:
                return self.answer(409, b'{"message":"it is there"}')
            return self.answer(201, json.dumps({"cacheId": number}).encode())
        number = int(path.removeprefix("caches/"))
        if self.command == "PATCH":
            start = int(re.match(r"bytes (\d+)-", self.headers["Content-Range"])[1])
            parts[number][start] = body
            return self.answer(204)
        whole = b"".join(part for _, part in sorted(parts[number].items()))
        if len(whole) != json.loads(body)["size"]:
            return self.answer(400, b'{"message":"it is not whole"}')
        committed[number] = whole
        self.answer(204)

    def upload(self, number, query, body):
        """Azure's Put Blob, Put Block and Put Block List."""
        if number in committed:
            return self.answer(409)
        match query.get("comp", [None])[0]:
            case None:
                assert self.headers["x-ms-blob-type"] == "BlockBlob"
                parts[number]["whole"] = body
            case "block":
                parts[number][query["blockid"][0]] = body
            case "blocklist":
                names = [block.text for block in ElementTree.fromstring(body)]
                parts[number]["whole"] = b"".join(parts[number][name] for name in names)
        self.answer(201)

    def download(self, number):
        body = committed[number]
        asked = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
        if not asked:
            return self.answer(200, body, "application/octet-stream")
        start, end = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
        if start >= len(body):
            return self.answer(416, b"", Content_Range=f"bytes */{len(body)}")
        part = body[start : end + 1]
        self.answer(206, part, "application/octet-stream", Content_Range=f"bytes {start}-{end}/{len(body)}")


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # who comes when it is full waits a second

    def handle_error(self, request, client_address):
        """Who stops reading early resets the connection, as is its right."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


Server(("127.0.0.1", PORT), Cache).serve_forever()
