"""The page in headless Chromium: every control, no error, nothing fetched; skipped where there is no Chromium."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_results import MadeResults

from panoptic_fpn_ext.report.__main__ import main

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
CHROMIUM = os.environ.get("CHROMIUM") or next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or name it in CHROMIUM"),
]
TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        launched = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=TIMEOUT_MS)
        yield launched
        launched.close()


class _View:
    """A page in the browser; ``problems`` are errors on the console and what it asked a network for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 800}, **options}
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT_MS)
        self.problems: list[str] = []
        self.page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._note)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]")

    def _note(self, request: Any) -> None:
        if request.url.split(":")[0] not in ("file", "blob", "data"):
            self.problems.append(request.url)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def pixels(self, selector: str) -> list[int]:
        """Sum of the colours of a canvas, and how many of its pixels are drawn."""
        script = """canvas => { const copy = new OffscreenCanvas(canvas.width, canvas.height);
            const context = copy.getContext('2d', { willReadFrequently: true });
            context.drawImage(canvas, 0, 0);
            const d = context.getImageData(0, 0, copy.width, copy.height).data;
            let sum = 0, drawn = 0; for (let i = 0; i < d.length; i++) (i % 4 < 3) ? sum += d[i] : drawn += d[i] > 0;
            return [sum, drawn]; }"""
        found: list[int] = self.page.locator(selector).first.evaluate(script)
        return found

    def until(self, expression: str) -> None:
        """Wait until an expression holds; Playwright's own way evaluates texts, which the page's policy refuses."""
        for _ in range(TIMEOUT_MS // 100):
            if self.page.evaluate(f"() => Boolean({expression})"):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{expression} never held")

    def settle(self) -> None:
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("reports")
    one, two = MadeResults(root / "one", num=30), MadeResults(root / "two", models=("a", "b"))
    for made in (one, two):
        main(made.command())
    results = [str(one.predictions[0]), "--images", str(one.images)]
    _without_truth(root / "alone.html", results)
    return {"one": root / "one" / "report.html", "two": root / "two" / "report.html", "alone": root / "alone.html"}


def _without_truth(output: Path, arguments: list[str]) -> None:
    from panoptic_fpn_ext.report import write_report

    write_report(str(output), None, [arguments[0]], images=arguments[2])


def test_tables_charts_and_theme(browser: Any, reports: dict[str, Path]):
    view = _View(browser, reports["one"], color_scheme="dark")
    page = view.page
    assert view.text("#theme") == "Light"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert view.text("#theme") == "Dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark

    head = page.locator("#table-classes th", has_text="PQ").first
    column = page.locator("#table-classes tbody tr td:nth-child(3)")
    head.locator("button").click()
    falling = [float(text) for text in column.all_inner_texts()]
    head.locator("button").click()
    rising = [float(text) for text in column.all_inner_texts()]
    assert falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)
    assert head.get_attribute("aria-sort") == "ascending"

    tools = page.locator('[data-filters="table-classes"]')
    tools.locator("select").select_option("thing")
    assert page.locator("#table-classes tbody tr:visible").count() == 2
    tools.locator("input").fill("do")
    assert page.locator("#table-classes tbody tr:visible").all_inner_texts()[0].startswith("door")

    page.locator("#chart-lost").scroll_into_view_if_needed()
    view.until("Chart.getChart('chart-lost')")
    assert view.pixels("#chart-lost")[1] > 1000
    charts = page.evaluate("Object.keys(report.charts)")
    for name in charts:
        page.locator(f"#chart-{name}").scroll_into_view_if_needed()
        view.until(f"Chart.getChart('chart-{name}')")
    page.locator(".bar nav a").last.click()
    assert page.evaluate("location.hash") == "#about"
    assert view.problems == []


def test_gallery_filters_and_sorts(browser: Any, reports: dict[str, Path]):
    view = _View(browser, reports["one"])
    page = view.page
    tiles = page.locator("#gallery .tile")
    assert tiles.count() == 24
    page.click("#gallery-more")
    assert tiles.count() == 30
    lost = page.evaluate("filtered.map(i => report.images[i].lost)")
    assert lost == sorted(lost, reverse=True)
    page.select_option("#gallery-sort", "name")
    assert view.text("#gallery .tile b") == "1.jpg"
    page.fill("#gallery-text", "12")
    assert page.locator("#gallery .tile b").all_inner_texts() == ["12.jpg"]
    page.fill("#gallery-text", "")
    page.select_option("#gallery-cause", label="missed")
    expected = page.evaluate("report.images.filter(i => i.by_cause[0] > 0).length")
    assert 0 < expected < 30
    assert view.text("#gallery-count") == f"{expected} of 30 images"
    page.select_option("#gallery-class", label="car")
    assert tiles.count() <= expected
    assert view.problems == []


def test_viewer_by_pointer_and_by_keys(browser: Any, reports: dict[str, Path]):
    view = _View(browser, reports["one"])
    page = view.page
    page.locator("#gallery .tile").first.click()
    panes = page.locator("#panes .pane")
    panes.nth(3).wait_for()
    assert panes.locator("button").all_inner_texts() == ["Image", "Ground truth", "Prediction", "Errors"]
    view.settle()
    assert all(view.pixels(f"#panes .pane:nth-child({k}) canvas")[1] > 1000 for k in (1, 2, 3, 4))

    box = panes.nth(1).locator("canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.9)
    assert "Ground truth: road" in view.text("#pointed")
    assert "Prediction:" in view.text("#pointed")

    scale = page.evaluate("view.scale")
    page.mouse.wheel(0, -400)
    view.until(f"view.scale > {scale} * 1.5")
    left = page.evaluate("view.x")
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 40, box["y"] + box["height"] * 0.9)
    page.mouse.up()
    assert page.evaluate("view.x") == pytest.approx(left + 40, abs=1)
    page.keyboard.press("0")
    assert page.evaluate("view.scale") == pytest.approx(scale)
    for key, larger in (("+", True), ("-", False)):
        before = page.evaluate("view.scale")
        page.keyboard.press(key)
        assert (page.evaluate("view.scale") > before) is larger
    page.keyboard.press("ArrowLeft")

    for key in "itfolv":
        view.settle()
        before = [view.pixels(f"#panes .pane:nth-child({k}) canvas") for k in (1, 2, 3, 4)]
        page.keyboard.press(key)
        view.settle()
        assert [view.pixels(f"#panes .pane:nth-child({k}) canvas") for k in (1, 2, 3, 4)] != before, key
        page.keyboard.press(key)
    page.locator('[data-layer="opacity"]').fill("90")
    page.keyboard.press("2")
    assert page.locator("#panes .pane:visible").count() == 1
    page.locator("#panes .pane:visible button").click()
    assert page.locator("#panes .pane:visible").count() == 4

    segment = page.locator("#viewer-segments button").first
    segment.click()
    pressed = page.locator('#viewer-segments button[aria-pressed="true"]')
    assert pressed.count() == 1
    assert page.evaluate("view.scale") >= scale
    title = view.text("#viewer-title")
    page.keyboard.press("n")
    view.until(f"document.getElementById('viewer-title').textContent !== {title!r}")
    view.until("document.querySelectorAll('#panes .pane').length === 4 && current")
    page.keyboard.press("p")
    view.until(f"document.getElementById('viewer-title').textContent === {title!r}")
    for name in ("zoom-in", "zoom-out", "zoom-fit", "next", "previous"):
        page.click(f'[data-act="{name}"]')
    page.click('[data-act="close"]')
    assert not page.locator("#viewer").is_visible()
    assert view.problems == []


def test_worst_segments_and_two_models(browser: Any, reports: dict[str, Path]):
    view = _View(browser, reports["two"])
    page = view.page
    page.locator("[data-segments] .tile").first.click()
    page.locator("#panes .pane").nth(5).wait_for()
    assert page.locator("#panes .pane button").all_inner_texts() == [
        "Image", "Ground truth", "Prediction, a", "Prediction, b", "Errors, a", "Errors, b",
    ]  # fmt: skip
    assert page.locator('#viewer-segments button[aria-pressed="true"]').count() == 1
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    page.select_option("#gallery-sort", "differ")
    differ = page.evaluate("filtered.map(i => report.images[i].differ)")
    assert differ == sorted(differ, reverse=True)
    assert "+" in view.text("#table-gained-by-cause") or "-" in view.text("#table-gained-by-cause")
    assert view.problems == []


def test_a_phone_and_predictions_alone(browser: Any, reports: dict[str, Path]):
    view = _View(browser, reports["alone"], viewport={"width": 390, "height": 800}, has_touch=True)
    page = view.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#gallery .tile").first.tap()
    page.locator("#panes .pane").nth(1).wait_for()
    assert page.locator("#panes .pane button").all_inner_texts() == ["Image", "Prediction"]
    assert not page.locator("#viewer aside").is_visible()
    page.locator('[data-act="list"]').tap()
    assert page.locator("#viewer aside").is_visible()
    assert view.problems == []
    for name in ("one", "two"):
        narrow = _View(browser, reports[name], viewport={"width": 390, "height": 800})
        assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 390, name
        assert narrow.problems == []


def test_paper(browser: Any, reports: dict[str, Path]):
    view = _View(browser, reports["one"])
    pdf = view.page.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000
    assert view.problems == []
