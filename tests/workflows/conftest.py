"""The real server, started once on a free port with the pack in its custom_nodes; standard library only."""

import base64
import contextlib
import json
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 480  # a busy machine; a host that ends is noticed at once
OPCODE_TEXT, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG = 1, 2, 8, 9, 10


class ServerError(RuntimeError):
    """The server refused a workflow (`.details` holds its JSON answer) or a node failed."""

    def __init__(self, message, details=None):
        super().__init__(message)
        self.details = details


class WebSocket:
    """As much of RFC 6455 as listening to the host needs: whole text frames, pings answered."""

    def __init__(self, host, port, path):
        self._socket = socket.create_connection((host, port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._buffer = b""
        self.previews = []  # bytes of each binary message so far
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._socket.recv(4096)
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ServerError(f"no websocket: {head.decode(errors='replace')}")

    def _read(self, count):
        while len(self._buffer) < count:
            block = self._socket.recv(65536)
            if not block:
                raise ServerError("the server closed the websocket")
            self._buffer += block
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _send(self, opcode, payload=b""):
        mask = os.urandom(4)  # a client must mask what it sends
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._socket.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

    def receive(self, timeout):
        """Return the next JSON message; binary previews before it go to `previews`."""
        end = time.monotonic() + timeout
        while True:
            self._socket.settimeout(max(0.1, end - time.monotonic()))
            first, second = self._read(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", self._read(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self._read(8))
            payload, opcode = self._read(length), first & 0x0F
            if opcode == OPCODE_TEXT:
                return json.loads(payload)
            if opcode == OPCODE_BINARY:
                self.previews.append(payload)
            if opcode == OPCODE_PING:
                self._send(OPCODE_PONG, payload)
            if opcode == OPCODE_CLOSE:
                raise ServerError("the server closed the websocket")

    def close(self):
        with contextlib.suppress(OSError):
            self._send(OPCODE_CLOSE)
        self._socket.close()


class Server:
    """A running host: .url, .port, .base, .log (its output so far) and the calls below."""

    def __init__(self, process, port, base, log_path):
        self.process, self.port, self.base, self._log_path = process, port, base, log_path
        self.url = f"http://127.0.0.1:{port}"

    @property
    def log(self):
        return self._log_path.read_text(errors="replace")

    def call(self, path, data=None):
        """GET `path`, or POST `data` to it as JSON; return the answer's JSON."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            with contextlib.suppress(ValueError):
                text = json.loads(text)
            raise ServerError(f"{error.code} from {path}: {text}", text) from None
        return json.loads(text) if text else None

    def queue(self, prompt, client_id=None, **extra):
        """Queue an API-format workflow and return its prompt id."""
        data = {"prompt": prompt, **extra}
        if client_id:
            data["client_id"] = client_id
        return self.call("/prompt", data)["prompt_id"]

    def wait(self, prompt_id, timeout=600):
        """Wait for a queued workflow and return its outputs (node id to what it showed)."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            entry = self.call(f"/history/{prompt_id}").get(prompt_id)  # there once it has ended
            if entry:
                if entry["status"]["status_str"] != "success":
                    raise ServerError(f"the run failed: {entry['status']['messages']}", entry)
                return entry["outputs"]
            if self.process.poll() is not None:
                raise ServerError(f"the server ended:\n{self.log[-4000:]}")
            time.sleep(0.1)
        self.call("/interrupt", {"prompt_id": prompt_id})
        raise TimeoutError(f"workflow {prompt_id} was not done in {timeout} s")

    def run(self, prompt, timeout=600):
        """Queue a workflow, wait for it and return its outputs."""
        return self.wait(self.queue(prompt), timeout)

    def run_with_events(self, prompt, timeout=600):
        """Run a workflow while listening on the websocket; return its outputs and the messages.

        The bytes of binary previews are messages of the type "preview".
        """
        client_id, events = str(uuid.uuid4()), []
        listener = WebSocket("127.0.0.1", self.port, f"/ws?clientId={client_id}")
        try:
            prompt_id = self.queue(prompt, client_id)
            end = time.monotonic() + timeout
            while True:
                message = listener.receive(end - time.monotonic())
                events += [{"type": "preview", "data": data} for data in listener.previews]
                listener.previews.clear()
                events.append(message)
                done = message["type"] in ("execution_success", "execution_error")
                if done and message["data"]["prompt_id"] == prompt_id:
                    break
        finally:
            listener.close()
        return self.wait(prompt_id, timeout), events

    def view(self, file):
        """Fetch the bytes of a file named in an output ({"filename", "subfolder", "type"})."""
        query = {key: file[key] for key in ("filename", "subfolder", "type")}
        with urllib.request.urlopen(f"{self.url}/view?{urllib.parse.urlencode(query)}", timeout=60) as answer:
            return answer.read()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def start(comfyui, base, environment=None):
    """Start the real server of a host on a free port in a process of its own; a `Server`, which ends with the block.

    Args:
        environment: more variables of it.
    """
    port, log_path = _free_port(), base / "server.log"
    command = [sys.executable, str(comfyui / "main.py"), "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
    command += ["--disable-api-nodes", *shlex.split(os.environ.get("LUMIERE_HOST_ARGS", "--cpu"))]
    environment = {**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"}
    if ROOT not in comfyui.parents:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing is written into a host not ours
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, cwd=base, stdout=log, stderr=subprocess.STDOUT, env=environment)
    running = Server(process, port, base, log_path)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                running.call("/system_stats")
                break
            if process.poll() is not None or time.monotonic() > end:
                raise ServerError(f"the server did not start:\n{running.log[-4000:]}")
            time.sleep(0.2)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def server(headless, comfyui, tmp_path_factory):
    """The real server: see `Server`. It ends with the session."""
    base = tmp_path_factory.mktemp("server")
    headless.prepare_base(base)
    shutil.copytree(Path(__file__).with_name("tiny_models"), base / "custom_nodes" / "tiny_models")
    with start(comfyui, base) as running:
        yield running
