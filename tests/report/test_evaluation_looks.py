"""The evaluation's page in a browser: in every scheme and width axe finds nothing, nothing is asked for."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import browser as browser
from evaluation_scores import full_scores, model, write_evaluation
from playwright.sync_api import Browser, Page

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.report.page import write_report

WIDE = {"viewport": {"width": 1360, "height": 860}}
PHONE = {"viewport": {"width": 375, "height": 700}, "is_mobile": True, "has_touch": True}
SIGHTS = {
    "wide, light": WIDE,
    "wide, dark": WIDE | {"color_scheme": "dark"},
    "phone, light": PHONE,
    "phone, dark": PHONE | {"color_scheme": "dark"},
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Everything that can be measured, seven models, one with a name that no column is made for."""
    scores = full_scores()
    scores["models"] |= {f"model-{k}": model({"one": 3.1, "two": 2.5}) for k in range(3)}
    scores["models"]["organisation/deoxyribonucleotide" + "-instruct" * 12] = model({"one": 3.0, "two": 2.0})
    root = Folder(str(tmp_path_factory.mktemp("evaluated")))
    write_evaluation(root, scores, answer="deoxyribonucleotide" * 12 + "\n" + "A line. " * 400)
    write_manifest(root.child("evaluation"), "evaluation", {}, {})
    write_report(root)
    return root


@pytest.fixture(scope="module")
def address(evaluated: Folder) -> str:
    return Path(evaluated.child("evaluation/report.html").uri).as_uri()


def look(browser: Browser, address: str, options: dict[str, Any], said: list[str], asked: list[str]) -> Page:
    page = browser.new_context(**options).new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    return page


@pytest.mark.parametrize("name", ["evaluation/report.html", "report.html"])
@pytest.mark.parametrize("options", SIGHTS.values(), ids=SIGHTS)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    browser: Browser, evaluated: Folder, options: dict[str, Any], name: str
) -> None:
    said: list[str] = []
    asked: list[str] = []
    address = Path(evaluated.child(name).uri).as_uri()
    page = look(browser, address, options, said, asked)
    results = Axe().run(page).response
    assert results["passes"]
    assert [(rule["id"], node["target"]) for rule in results["violations"] for node in rule["nodes"]] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"]
    assert said == []
    assert asked == [address]
    page.context.close()


def test_one_page_leads_to_the_other(browser: Browser, evaluated: Folder, address: str) -> None:
    page = look(browser, Path(evaluated.child("report.html").uri).as_uri(), WIDE, [], [])
    page.get_by_role("link", name="the evaluation's own page").click()
    assert page.url == address
    page.context.close()


def test_the_plots_follow_the_scheme(browser: Browser, address: str) -> None:
    def colors(scheme: str) -> list[str]:
        page = look(browser, address, {**WIDE, "color_scheme": scheme}, [], [])
        found: list[str] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('svg.plot path[style*=series]')).stroke]"
        )
        page.context.close()
        return found

    assert all(light != dark for light, dark in zip(colors("light"), colors("dark"), strict=True))


def test_the_printed_page_is_white_and_holds_whole_tables(browser: Browser, address: str) -> None:
    page = look(browser, address, {**WIDE, "color_scheme": "dark"}, [], [])
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    page.context.close()
