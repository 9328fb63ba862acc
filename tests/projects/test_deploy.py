"""The page for browsers, in headless Chromium: its map is ONNX Runtime's, segments are named, nothing leaves."""

import shutil
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from places import REPOSITORY

from panoptic_fpn_ext.export.predict import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [name for name in ("onnx", "onnxruntime", "playwright") if find_spec(name) is None]
MISSING += [] if CHROMIUM else ["Chromium"]
MISSING += [] if shutil.which("npm") or (REPOSITORY / "projects/deploy/node_modules").is_dir() else ["npm"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(REPOSITORY / "projects/deploy"))
    import serve

    yield serve
    sys.modules.pop("serve")


def test_refuses_what_is_no_exported_model(serve: Any, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"an exported \.onnx file is needed"):
        serve.build(tmp_path / "model.onnx", tmp_path / "site")
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07 no model")
    with pytest.raises(ValueError, match=r"model\.onnx cannot be opened by ONNX Runtime"):
        serve.build(tmp_path / "model.onnx", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_port_that_is_taken(serve: Any, tmp_path: Path):
    with serve.make_server(tmp_path, 0) as server, pytest.raises(OSError, match=r"cannot be used.* --port 0 takes"):
        serve.make_server(tmp_path, server.server_port)


@pytest.mark.slow
def test_the_page_shows_the_map_of_onnx_runtime(serve: Any, tmp_path: Path, released_export: Path):
    from playwright.sync_api import sync_playwright

    try:
        serve.build(released_export / "model.onnx", tmp_path / "site")
    except ChildProcessError:
        pytest.skip("npm cannot fetch onnxruntime-web here")
    photo = tmp_path / "photo.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((200, 120)).save(photo)
    server = serve.make_server(tmp_path / "site", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.get_by_text("Ready. The model").wait_for(timeout=60_000)
        page.set_input_files("#file", __file__)
        page.get_by_text("is not an image").wait_for()
        page.set_input_files("#file", str(photo))
        page.get_by_text("Point at one").wait_for(timeout=120_000)
        shown = np.array(page.evaluate("Array.from(lastResult.map)")).reshape(120, 200)
        expected, ids, categories, description = _expected(tmp_path / "site/model.onnx", photo)
        assert np.array_equal(shown, expected)
        names = {row["id"]: row["name"] for row in description["categories"]}
        place = page.locator("#overlay").bounding_box()
        for y, x in ((10, 20), (60, 100), (110, 180)):
            page.mouse.move(
                place["x"] + place["width"] * (x + 0.5) / 200, place["y"] + place["height"] * (y + 0.5) / 120
            )
            known = dict(zip(ids.tolist(), categories.tolist(), strict=True)).get(int(expected[y, x]))
            assert (names[known] if known else "nothing") in page.inner_text("#name")
        assert page.locator("#segments button").count() == len(ids)
        page.locator("#segments button").first.focus()
        assert page.locator("#segments button.lit").count() == 1
        browser.close()
    server.shutdown()
    assert said == []
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {f"127.0.0.1:{server.server_port}"}


def _expected(model: Path, photo: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    predict, description = load(str(model))
    rgb = np.asarray(Image.open(photo).convert("RGB"))
    image = rgb[:, :, ::-1] if description["input_format"] == "BGR" else rgb
    panoptic_seg, ids, categories, *_ = predict(np.ascontiguousarray(image))
    return panoptic_seg, ids, categories, description
