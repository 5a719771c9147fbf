"""The real host in this process, without a port or a browser: for the demo, the command line and the tests.

Only the standard library is imported here; the host is imported by `HeadlessHost`, whose arguments must be known
before the first import of `comfy` (host 0.30.0 parses the command line while it is being imported).
Load this file by its path or from inside the pack; never put the pack's root on `sys.path` before the host's,
or `import nodes` finds the pack's folder instead of the host's file.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

PACK_ROOT = Path(__file__).resolve().parents[2]
BASE_FOLDERS = ("custom_nodes", "models", "user", "output", "input", "temp")


class HostError(RuntimeError):
    """The host could not be started, refused a workflow, or failed while running it."""


def print_anything() -> None:
    """Let a console that lacks a letter (cp1252, ASCII) get it spelt out: no work ends over its report."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def core_file(name: str) -> ModuleType:
    """Return a module of core that needs nothing but the standard library; the host may not have this pack."""
    known = f"lumiere_file_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, PACK_ROOT / "lumiere_core" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[known] = module
    return sys.modules[known]


def take_stdout() -> Callable[[str], None]:
    """Keep stdout for answers of one line each, in UTF-8; whatever else is printed there goes to stderr from now on.

    Returns:
        The function that says an answer.
    """
    answers = open(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    os.dup2(2, 1)

    def say(text: str) -> None:
        answers.write(" ".join(text.splitlines()) + "\n")
        answers.flush()

    return say


def find_host() -> Path:
    """Return the host's folder: $COMFYUI_PATH, else the one that the pack lies in, else the one that `make` sets up."""
    given = os.environ.get("COMFYUI_PATH")
    around = PACK_ROOT.parent.parent if PACK_ROOT.parent.name == "custom_nodes" else None
    if around is not None and not (around / "main.py").is_file():
        around = None
    path = Path(given) if given else around or PACK_ROOT / ".host" / "ComfyUI"
    if (path / "main.py").is_file() and (path / "comfy").is_dir():
        return path.resolve()
    source = "COMFYUI_PATH" if given else "the default place"
    raise HostError(
        f"no ComfyUI in {path} ({source}): it has no main.py beside a folder comfy. "
        "Set COMFYUI_PATH to a ComfyUI folder, or run `make setup`."
    )


def prepare_base(base: Path, folder: str = "lumiere") -> None:
    """Make a base folder for the host, with this pack in its custom_nodes under the name `folder`."""
    for name in BASE_FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / folder
    if _is_pack(link):
        return
    if link.is_symlink():  # left by a checkout that has moved
        link.unlink()
    if link.exists():
        raise HostError(f"{link} is in the way: it is not a link to {PACK_ROOT}; move it away")
    try:
        link.symlink_to(PACK_ROOT, target_is_directory=True)
    except OSError:
        # Windows gives symbolic links to administrators only, junctions to everyone.
        import _winapi

        _winapi.CreateJunction(str(PACK_ROOT), str(link))


def has_pack(base: Path) -> bool:
    """Say whether this pack is in the custom_nodes of a base folder."""
    packs = base / "custom_nodes"
    return packs.is_dir() and any(_is_pack(path) for path in packs.iterdir())


def needs_cpu_flag() -> bool:
    """Say whether the host must be told --cpu: without an accelerator it stops at once."""
    import torch

    xpu = getattr(torch, "xpu", None)
    return not (
        torch.cuda.is_available() or torch.backends.mps.is_available() or (xpu is not None and xpu.is_available())
    )


def start_host(base: Path) -> HeadlessHost:
    """Boot the host that `find_host` names, on the CPU where the machine has nothing else."""
    return HeadlessHost(find_host(), base, ["--cpu"] if needs_cpu_flag() else [])


def do_jobs(prepare: Callable[[], Callable[[dict], object]]) -> None:
    """Do jobs, a JSON object in each line of the input, until it ends: the other side of core's `host_process.Worker`.

    Says "ready", or "failed: …" and ends; then "done" or "failed: …" of each job.

    Args:
        prepare: returns the function that does one.
    """
    print_anything()
    say = take_stdout()
    try:
        job = prepare()
    except Exception as error:
        say(f"failed: {error}")
        return
    say("ready")
    for line in sys.stdin:
        try:
            job(json.loads(line))
            say("done")
        except Exception as error:
            say(f"failed: {error}")


class HeadlessHost:
    """A booted host. One per process: the host keeps its state in modules.

    Attributes:
        nodes_by_id: node id to node class, the host's own and those of every pack in `base`.
        pack: this pack's module, loaded by the host under its path-like name; None if `base` does not hold it.
        events: every (name, data) the host would have sent to a browser since the last `run` began, and
            ("progress", {"value", "max", "node", "preview"}) for each step of a progress bar.
    """

    def __init__(self, comfyui: Path, base: Path, arguments: Sequence[str] = ()):
        """Start the host.

        Args:
            comfyui: the host's folder; nothing is written into it.
            base: our folder for models, outputs and custom_nodes (see `prepare_base`).
            arguments: more of the host's command-line options, such as "--cpu".
        """
        if "comfy" in sys.modules:
            raise HostError("the host was already imported in this process: start it once only")
        if PACK_ROOT not in comfyui.parents:
            sys.dont_write_bytecode = True  # a host that is not ours gets no __pycache__ from us
        sys.path.insert(0, str(comfyui))
        options = ["--base-directory", str(base), "--disable-api-nodes", *arguments]
        saved_argv, sys.argv = sys.argv, [str(comfyui / "main.py"), *options]
        try:
            import comfy.options

            comfy.options.enable_args_parsing()
            import comfy.cli_args  # noqa: F401  (parses sys.argv)
        finally:
            sys.argv = saved_argv

        with _Warnings() as warnings:
            self._start()
        self.pack = _loaded_pack()
        if self.pack is None and has_pack(base):
            raise HostError(f"the host could not load the pack:\n{warnings.text()}")

    def _start(self) -> None:
        import comfy.utils
        import execution
        import nodes
        import server

        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._server = server.PromptServer(self._loop)  # builds its routes, listens on nothing
        self._loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False))
        self.nodes_by_id = nodes.NODE_CLASS_MAPPINGS
        self.events: list[tuple[str, object]] = []
        self._listener: Callable[[str, object], None] | None = None
        self._server.send_sync = lambda event, data, sid=None: self._tell(event, data)
        comfy.utils.set_progress_bar_global_hook(self._progress)
        self._executor = execution.PromptExecutor(
            self._server,
            cache_type=execution.CacheType.CLASSIC,
            # 0.30.0 reads the ram keys with every kind of cache.
            cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0},
        )

    def run(self, prompt: dict, on_event: Callable[[str, object], None] | None = None, **extra_data) -> dict:
        """Run an API-format workflow and return its outputs: node id to what the node showed.

        Args:
            prompt: node id to {"class_type", "inputs"}; it is not changed.
            on_event: called with each (name, data) as it happens.
            extra_data: more of the request's fields, such as `extra_pnginfo`.

        Raises:
            HostError: the host refused the workflow or a node failed.
        """
        import execution

        self.events.clear()
        self._listener = on_event
        prompt_id = str(uuid.uuid4())
        prompt = {key: {**node, "inputs": dict(node["inputs"])} for key, node in prompt.items()}
        try:
            valid, error, outputs, node_errors = self._loop.run_until_complete(
                execution.validate_prompt(prompt_id, prompt, None)
            )
            if not valid:
                raise HostError(_refusal(error, node_errors))
            # Without a client_id the host drops most messages.
            extra = {"client_id": "headless", **extra_data}
            with _ctrl_c_at_once():
                self._executor.execute(prompt, prompt_id, extra, outputs)
            if not self._executor.success:
                raise HostError(_failure(self._executor.status_messages))
            return self._executor.history_result["outputs"]
        finally:
            self._listener = None

    def call(self, node_id: str, **inputs) -> tuple:
        """Run one node by itself and return its outputs, such as tensors. Nothing is validated or cached."""
        import torch

        node = self.nodes_by_id[node_id]
        with torch.inference_mode():
            if hasattr(node, "GET_SCHEMA"):
                node.GET_SCHEMA()  # fills in the class's schema, which EXECUTE_NORMALIZED reads
                return node.PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**inputs).args
            instance = node()
            return getattr(instance, node.FUNCTION)(**inputs)

    def module(self, name: str):
        """Import a module of the pack, e.g. "lumiere_core.clips.media", as the host's copy of the pack has it."""
        if self.pack is None:
            raise HostError("the pack is not in the host's custom_nodes")
        return importlib.import_module(f"{self.pack.__name__}.{name}")

    def _tell(self, event: str, data: object) -> None:
        self.events.append((event, data))
        if self._listener is not None:
            self._listener(event, data)

    def _progress(self, value, total, preview, prompt_id=None, node_id=None) -> None:
        import comfy.model_management

        comfy.model_management.throw_exception_if_processing_interrupted()
        data = {"value": value, "max": total, "node": node_id, "preview": preview is not None}
        self._tell("progress", data)


@contextlib.contextmanager
def _ctrl_c_at_once():
    """Let Ctrl-C end a running node; the body ends early and KeyboardInterrupt is raised after it.

    From Python 3.11 on, asyncio.run puts its own handler in the place of Python's, which waits for the next await:
    the end of the sampling. It leaves any other handler alone. The first Ctrl-C asks the host to stop, because an
    exception out of a signal can strike in a place that swallows it, such as a weak reference's callback.
    """
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not default or threading.current_thread() is not threading.main_thread():
        yield
        return
    import comfy.model_management

    pressed = []

    def stop(*arguments) -> None:
        if pressed:
            signal.default_int_handler(*arguments)
        pressed.append(True)
        comfy.model_management.interrupt_current_processing()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        comfy.model_management.interrupt_current_processing(False)
    if pressed:
        raise KeyboardInterrupt


class _Warnings(logging.Handler):
    """Collects the host's warnings: a pack that fails to import only logs one (exit status 0)."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def text(self) -> str:
        return "\n".join(self._lines) or "(the host logged no reason)"

    def __enter__(self):
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_):
        logging.getLogger().removeHandler(self)


def _is_pack(path: Path) -> bool:
    return path.resolve() == PACK_ROOT


def _loaded_pack():
    """Find this pack among the loaded modules: the host names it by path, so its name is not known."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.endswith("__init__.py") and hasattr(module, "comfy_entrypoint"):
            if _is_pack(Path(file).parent):
                return module
    return None


def _refusal(error: dict, node_errors: dict) -> str:
    lines = [f"the host refused the workflow: {error.get('message')} {error.get('details', '')}".rstrip()]
    for node_id, node in node_errors.items():
        for problem in node["errors"]:
            lines.append(f"  node {node_id} ({node['class_type']}): {problem['message']}: {problem['details']}")
    return "\n".join(lines)


def _failure(messages: Sequence[tuple[str, dict]]) -> str:
    for event, data in reversed(messages):
        if event == "execution_error":
            # The host has logged the traceback.
            return (
                f"node {data['node_id']} ({data['node_type']}) failed: "
                f"{data['exception_type']}: {data['exception_message'].strip()}"
            )
        if event == "execution_interrupted":
            return "the run was interrupted"
    return "the host reported a failure without a reason"
