"""The page for browsers, as a person uses it: in Chromium, at a real server."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import itk
import numpy as np
import pytest
import requests
from browser import CHROMIUM, Browser, browsing
from label_server import LABEL, ROOT, Server, annotate, read_nifti, serving, write_studies
from PIL import Image

pytestmark = [
    pytest.mark.skipif(not LABEL.is_dir(), reason="monai-flowssn label has not been run here"),
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore"),
]
MODEL = "ssn_segmentation"  # with the weights that the repository has: it takes a point


@pytest.fixture(scope="module")
def server(tiny_lidc: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the shipped SSN, with a study that two raters drew."""
    app = tmp_path_factory.mktemp("page")
    bundle = ROOT / "bundles" / MODEL
    shutil.copytree(bundle, app / "model" / MODEL)
    write_studies(app / "studies", tiny_lidc)
    shutil.copy(app / "studies" / "picture1.png", app / "studies" / f"{'1.2.826.0.' * 6}.png")  # DICOM's names are long
    command = (sys.executable, "-m", "monai_flowssn", "label", app, app / "studies")
    with serving(app, *command) as server:
        annotate(server, {"picture0": ("anna", "boris")})
        yield server


@pytest.fixture
def browser(server: Server, tmp_path: Path) -> Iterator[Browser]:
    with browsing(tmp_path) as browser:
        yield browser
        assert not browser.faults
        assert all(address.startswith((server.address, "blob:", "data:")) for address in browser.requested)


def choose(browser: Browser, server: Server, study: str) -> None:
    browser.open(f"{server.address}/draws/?study={study}")
    browser.wait("image !== null")


def draw(browser: Browser, count: int) -> None:
    browser.run(f"byId.count.value = {count}")
    browser.click("#go")
    browser.wait("answer !== null || byId.fault.textContent")
    assert browser.run("byId.fault.textContent") == ""


def test_a_picture_with_raters(server: Server, browser: Browser, tmp_path: Path) -> None:
    choose(browser, server, "picture0")
    assert browser.run("image.size") == [22, 24, 1]
    assert browser.run("[byId.point.hidden, byId.depth.hidden, byId.slices.hidden]") == [False, True, True]
    browser.click("#canvas", 10.5 / 22, 7.5 / 24)
    assert browser.run("point") == [10, 7, 0]
    draw(browser, 3)
    asked = requests.post(
        f"{server.address}/infer/{MODEL}",
        params={"image": "picture0", "output": "json"},
        data={"params": json.dumps({"draws": 3, "foreground": [[10, 7]]})},
        timeout=60,
    ).json()
    sizes = asked["classes"]["1"]["per_draw"]
    assert browser.run("answer.result.classes[1].per_draw") == sizes
    counted = "Array.from({length: 3}, (_, n) => answer.draws.values.filter((v, i) => v && i % 3 === n).length)"
    assert browser.run(counted) == sizes  # the outlines are of the draws whose sizes it tells
    assert browser.run("raters.map(({name, size}) => [name, size])") == [["anna", 70], ["boris", 77]]
    assert "anna 70, boris 77" in browser.run("byId.text.textContent")
    assert browser.run("byId.histogram.querySelectorAll('path').length") == 2
    browser.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for name, suffix in {"file": "seg.nrrd", "json": "json", "picture": "png"}.items():
        path = tmp_path / f"picture0.{suffix}"
        browser.click(f"#{name}")
        for _ in range(100):
            if path.exists():
                break
            time.sleep(0.1)
    assert json.loads((tmp_path / "picture0.json").read_text())["classes"]["1"]["per_draw"] == sizes
    draws = itk.array_from_image(itk.imread(str(tmp_path / "picture0.seg.nrrd"), itk.Vector[itk.F, 3]))
    np.testing.assert_array_equal(draws.sum(axis=(0, 1, 2)), sizes)
    assert Image.open(tmp_path / "picture0.png").size == (38 * 22, 38 * 24)

    # zoomed in, the point is in the middle, and a click beside it is a pixel beside it
    browser.run("byId.zoom.value = 2; byId.zoom.dispatchEvent(new Event('input', {bubbles: true}))")
    browser.click("#canvas", (5.5 + 2) / 11, 0.5)
    assert browser.run("point") == [12, 7, 0]
    draw(browser, 3)

    # draws are flipped through with the keyboard
    browser.run("byId.draw.focus()")
    browser.press("ArrowRight", 39)
    assert browser.run("byId.which.textContent").startswith("2 of 3: ")
    assert "draw 2" in browser.run("canvas.getAttribute('aria-label')")

    # a point that changes takes the draws away that are of another
    browser.click("#unpoint")
    assert browser.run("[point, answer, byId.flip.hidden]") == [None, None, True]


def test_a_volume_lies_as_in_a_viewer(server: Server, browser: Browser, tmp_path: Path) -> None:
    choose(browser, server, "volume")
    # of the file, x runs to the patient's left and y to the front, which is up
    assert browser.run("view().map(({letters}) => letters)") == ["RL", "AP"]
    browser.click("#canvas", 0.5 / 22, 0.5 / 24)
    assert browser.run("point") == [0, 23, 1]
    browser.click("#unpoint")
    draw(browser, 3)
    assert browser.run("byId.kind.textContent") == "Volumes"
    for name in ("entropy", "mutual_information"):
        browser.run(f"byId.top.value = {name!r}; byId.top.dispatchEvent(new Event('change', {{bubbles: true}}))")
        browser.wait(f"answer.maps.{name} || byId.fault.textContent")
        answer = requests.post(
            f"{server.address}/infer/{MODEL}",
            params={"image": "volume", "output": "image"},
            data={"params": json.dumps({"draws": 3, "output": name})},
            timeout=60,
        )
        nats = read_nifti(answer.content, tmp_path).get_fdata().ravel(order="F")  # x is fastest
        np.testing.assert_allclose(browser.run(f"Array.from(answer.maps.{name})"), nats / np.log(2), atol=1e-4)
    assert browser.run("byId.high.textContent") == "0.69 nats"


def test_what_is_wrong_is_told(server: Server, browser: Browser) -> None:
    choose(browser, server, "picture0")
    browser.run("byId.x.value = 500; byId.y.value = 3; byId.y.dispatchEvent(new Event('input', {bubbles: true}))")
    browser.run("byId.ask.noValidate = true")
    browser.click("#go")
    browser.wait("byId.fault.textContent")
    assert "outside of its image of [22, 24]" in browser.run("byId.fault.textContent")
    assert browser.run("[byId.go.disabled, byId.cancel.hidden, byId.sizes.hidden]") == [False, True, True]
    browser.faults = [fault for fault in browser.faults if "status of 400" not in fault]  # Chromium logs those
    for address in ("file?image=nowhere", "file?image=picture0&tag=carla"):
        assert requests.get(f"{server.address}/draws/{address}", timeout=60).status_code == 400


def test_a_long_drawing_is_cancelled(server: Server, browser: Browser) -> None:
    choose(browser, server, "volume")
    browser.run("byId.ask.noValidate = true; byId.count.value = 100000")
    browser.click("#go")
    browser.wait("!byId.cancel.hidden")
    browser.click("#cancel")
    browser.wait("byId.status.textContent === 'Cancelled.'")
    browser.click("#go")
    browser.wait("!byId.cancel.hidden")
    browser.run(
        "byId.study.value = 'picture0'; byId.study.dispatchEvent(new Event('change'))"
    )  # so is that of another study
    browser.wait("image !== null && image.size[2] === 1")
    draw(browser, 2)
    assert browser.run("[answer.result.case, answer.draws.size]") == ["picture0", [22, 24, 1]]


def test_it_is_accessible(server: Server, browser: Browser) -> None:
    choose(browser, server, "picture0")
    draw(browser, 2)
    for node in browser.send("Accessibility.getFullAXTree")["nodes"]:
        focusable = any(each["name"] == "focusable" for each in node.get("properties", ()))
        if not node["ignored"] and focusable and node["role"]["value"] != "RootWebArea":
            assert node["name"]["value"], node
    worst = browser.run(CONTRAST)
    assert worst[0] >= 4.5, worst  # WCAG 2.1, AA
    for width in (360, 800):
        browser.open(f"{server.address}/draws/?study=picture0", width=width)
        browser.wait("image !== null")
        wide = "[document.documentElement, ...document.querySelectorAll('form, section, label, fieldset')]"
        assert (
            browser.run(f"{wide}.filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.outerHTML)")
            == []
        )


CONTRAST = """(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = colour => numbers(colour).slice(0, 3).reduce((sum, v, i) => sum + linear(v / 255) * [.2126, .7152, .0722][i], 0);
  const behind = node => {
    for (let each = node; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
  };
  const texts = [...document.body.querySelectorAll('*')].filter(node => node.checkVisibility() && !node.disabled
    && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()) && !node.closest('svg, canvas'));
  return texts.map(node => {
    const [low, high] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => a - b);
    return [(high + .05) / (low + .05), node.textContent];
  }).sort((a, b) => a[0] - b[0])[0];
})()"""
