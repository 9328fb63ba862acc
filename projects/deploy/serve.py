#!/usr/bin/env python
"""A page that segments photos in the browser: build it from an exported model and serve it on this machine.

The model runs in WebAssembly (onnxruntime-web, which npm fetches once). Photos never leave the machine: the page may
speak with nobody but the server that it came from, and that takes no data.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import json
import shutil
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from panoptic_fpn_ext.command import child_output, command_parser, run_command, whole
from panoptic_fpn_ext.export.runtimes import read_description

HERE = Path(__file__).resolve().parent
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")

# Nothing is fetched from, or sent to, any other place.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval' blob:",
        "worker-src 'self' blob:",
        "img-src 'self' blob: data:",
    )
)


def build(model: Path, site: Path) -> None:
    """Write the page, the runtime and the model into a folder that any web server can serve.

    Args:
        model: an exported ``.onnx`` file.
        site: the folder; files of the same names are replaced.

    Raises:
        FileNotFoundError: no such model, or no npm.
        ChildProcessError: npm cannot fetch the runtime.
        ValueError: the file is damaged, or no exported panoptic model.
    """
    if model.suffix != ".onnx" or not model.is_file():
        raise FileNotFoundError(
            f"{model}: an exported .onnx file is needed; "
            "`python -m panoptic_fpn_ext.export CONFIG WEIGHTS FOLDER` writes it."
        )
    description = read_description(model)
    runtime = _fetch_runtime()
    site.mkdir(parents=True, exist_ok=True)
    for file in (*sorted((HERE / "site").iterdir()), *(runtime / name for name in RUNTIME)):
        shutil.copyfile(file, site / file.name)
    shutil.copyfile(model, site / "model.onnx")
    # The browser's runtime does not hand out what the file says of itself.
    (site / "model.json").write_text(json.dumps(description), encoding="utf-8")


def _fetch_runtime() -> Path:
    runtime = HERE / "node_modules" / "onnxruntime-web" / "dist"
    if not all((runtime / name).is_file() for name in RUNTIME):
        if shutil.which("npm") is None:
            raise FileNotFoundError("npm is needed once, for onnxruntime-web: install Node.js, then try again.")
        print("Fetching onnxruntime-web (npm) ...", flush=True)
        child_output(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"], cwd=str(HERE))
    return runtime


class Handler(SimpleHTTPRequestHandler):
    """Static files, isolated so that the runtime may use threads, and bound to this origin."""

    def end_headers(self) -> None:
        """Add the headers of every answer."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def guess_type(self, path: str) -> str:  # type: ignore[override]
        """Types that the system may not know, and without which browsers refuse modules."""
        types = {".mjs": "text/javascript", ".wasm": "application/wasm"}
        return types.get(Path(path).suffix) or super().guess_type(path)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""


def make_server(site: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder for this machine alone; port 0 takes a free one."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(site)))
    except OSError as error:
        raise OSError(f"Port {port} cannot be used: {error.strerror}. --port 0 takes one that is free.") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser(__doc__, "python projects/deploy/serve.py exported/model.onnx")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="what `python -m panoptic_fpn_ext.export` wrote")
    parser.add_argument(
        "--output", type=Path, default=Path("output/deploy"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--port", type=whole(0, 65535), default=8000, metavar="N", help="(%(default)s); 0: any free one"
    )
    parser.add_argument("--build-only", action="store_true", help="leave the folder for a web server of your own")
    args = parser.parse_args(arguments)
    build(args.model, args.output)
    print(f"The page is in {args.output}.", flush=True)
    if args.build_only:
        return
    with make_server(args.output, args.port) as server:
        print(f"Open http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    run_command(main)
