"""A real ComfyUI in a process of its own, with this checkout as its only custom node pack."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

PACK_FOLDER = "squeeze"

# The server has no page that lists loaded models; this file in its custom_nodes folder adds one.
PROBE = """
import sys

import comfy.model_management
from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {}
AT_START = []


@PromptServer.instance.routes.get("/probe/loaded")
async def loaded(request):
    patchers = [entry.model for entry in list(comfy.model_management.current_loaded_models)]
    return web.json_response([
        {
            "model": type(patcher.model).__name__,
            "inner": [type(child).__name__ for child in patcher.model.children()],
            "bytes": patcher.loaded_size(),
        }
        for patcher in patchers if patcher is not None
    ])


@PromptServer.instance.routes.get("/probe/modules")
async def modules(request):
    return web.json_response(AT_START)


async def remember(app):
    AT_START.extend(name for name in sys.modules if "." not in name)


PromptServer.instance.app.on_startup.append(remember)
"""


class GraphError(AssertionError):
    """A graph was refused or failed; the message says where, with the end of the server's log."""


class ComfyServer:
    """Boots `main.py --cpu` on a free loopback port. All its folders lie below `base`."""

    def __init__(self, comfyui: Path, checkout: Path, base: Path, extra_arguments: tuple[str, ...] = ()):
        self.base = base
        for name in ("models", "input", "output", "temp", "user", "custom_nodes", "packs"):
            (base / name).mkdir(parents=True, exist_ok=True)
        (base / "custom_nodes" / "probe.py").write_text(PROBE)
        (base / "packs" / PACK_FOLDER).symlink_to(checkout, target_is_directory=True)
        # --base-directory moves the stock folder of custom nodes away from what else is installed there.
        paths = base / "extra_model_paths.yaml"
        paths.write_text(f"tests:\n  base_path: {base}\n  custom_nodes: packs\n")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client_id = uuid.uuid4().hex
        self.log_file = base / "server.log"
        command = [sys.executable, str(comfyui / "main.py"), "--cpu", "--port", str(self.port)]
        command += ["--base-directory", str(base), "--extra-model-paths-config", str(paths)]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            "XDG_CACHE_HOME": str(base / "cache"),  # the toy world's
        }
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *extra_arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=comfyui,
                env=environment,
            )

    def wait_until_ready(self, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"ComfyUI ended by itself ({self.process.returncode}).\n{self.log()}")
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise AssertionError(f"ComfyUI did not answer within {seconds} s.\n{self.log()}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    # What the server says about itself.

    def log(self, lines: int = 80) -> str:
        """The end of the server's log."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def pack_import_seconds(self) -> float:
        """How long this pack took, to 0.1 s, from the server's own "Import times for custom nodes"."""
        found = re.search(rf"([\d.]+) seconds( \(IMPORT FAILED\))?: .*{PACK_FOLDER}\s*$", self.log(10_000), re.M)
        assert found, f"The pack is not among the import times.\n{self.log()}"
        assert not found[2], f"The pack failed to import.\n{self.log()}"
        return float(found[1])

    def object_info(self) -> dict:
        return self.get("/object_info")

    # Plain HTTP.

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.loads(answer.read())

    def get_bytes(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read()

    def post(self, path: str, payload: dict) -> tuple[int, dict]:
        """(status, answer); a refusal is an answer, not an exception."""
        request = urllib.request.Request(
            self.url + path, json.dumps(payload).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                body = answer.read()
                return answer.status, json.loads(body) if body.strip() else {}
        except urllib.error.HTTPError as refusal:
            body = refusal.read()
            try:
                return refusal.code, json.loads(body)
            except ValueError:
                return refusal.code, {"error": body.decode(errors="replace")}

    # Graphs.

    def submit(self, prompt: dict) -> str:
        """Queue a graph in API format and return its prompt id; raises `GraphError` with the refusal."""
        status, answer = self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})
        if status != 200 or answer.get("node_errors"):
            raise GraphError(f"The graph was refused ({status}): {json.dumps(answer, indent=1)}")
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 300) -> dict:
        """The history entry of a finished graph, whatever its end was: see entry["status"]."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry
            if self.process.poll() is not None:
                raise GraphError(f"ComfyUI ended while the graph ran.\n{self.log()}")
            time.sleep(0.1)
        raise GraphError(f"The graph did not end within {seconds} s.\n{self.log()}")

    def run_graph(self, prompt: dict, seconds: float = 300) -> dict:
        """Run a graph in API format to its end: {node id: {"images": [...], ...}} of its output nodes."""
        entry = self.wait(self.submit(prompt), seconds)
        if entry["status"]["status_str"] != "success":
            last = [m for m in entry["status"]["messages"] if m[0] in ("execution_error", "execution_interrupted")]
            raise GraphError(f"The graph failed: {json.dumps(last, indent=1)[:4000]}\n{self.log()}")
        return entry["outputs"]

    def executed_nodes(self, prompt_id: str) -> set[str]:
        """Node ids that ran in a finished graph, those answered from the cache left out."""
        entry = self.wait(prompt_id)
        cached = {
            n for kind, data in entry["status"]["messages"] if kind == "execution_cached" for n in data["nodes"]
        }
        return set(entry["prompt"][2]) - cached

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def loaded_models(self) -> list[dict]:
        """What the memory manager holds now: [{"model": class name, "inner": [...], "bytes": loaded}]."""
        return self.get("/probe/loaded")

    def modules_at_start(self) -> set[str]:
        """Top-level modules that were imported when the server began to answer."""
        return set(self.get("/probe/modules"))

    def free(self, seconds: float = 30) -> list[dict]:
        """POST /free (unload models, forget results); what is still loaded after it, normally nothing."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # The endpoint only sets a flag for the worker, which may miss it on its way to sleep: ask again.
            self.post("/free", {"unload_models": True, "free_memory": True})
            for _ in range(20):
                if not self.loaded_models():
                    return []
                time.sleep(0.1)
        return self.loaded_models()

    def upload_image(self, file: Path, name: str | None = None) -> str:
        """Put a picture into the input folder through the API; returns the name for Load Image."""
        name = name or file.name
        boundary = uuid.uuid4().hex
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        body += file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        request = urllib.request.Request(
            self.url + "/upload/image", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["name"]

    def image(self, entry: dict) -> bytes:
        """The file of one entry of outputs[...]["images"]."""
        query = "&".join(f"{key}={entry[key]}" for key in ("filename", "subfolder", "type"))
        return self.get_bytes(f"/view?{query}")

    def events(self):
        """An open websocket of this client; `receive(kind)` waits for a message of that kind."""
        return Events(self)


class Events:
    """The server's messages to this client. Open it before the graph is submitted; use as a context."""

    def __init__(self, server: ComfyServer):
        import websocket

        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{server.port}/ws?clientId={server.client_id}", timeout=60
        )

    def receive(self, kind: str, seconds: float = 120, **fields) -> dict:
        """The data of the next message of this kind whose data has these fields."""
        self.socket.settimeout(seconds)
        while True:
            message = self.socket.recv()
            if isinstance(message, bytes):
                continue  # previews
            message = json.loads(message)
            data = message.get("data", {})
            if message["type"] == kind and all(data.get(key) == value for key, value in fields.items()):
                return data

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *exception) -> None:
        self.socket.close()
