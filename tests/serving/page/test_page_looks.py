"""In every state, scheme and width: axe finds nothing serious, nothing is wider than a phone."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from page_use import OpenPage, ask, begin_endless_answer, enter_key, ready, wait_for_answer
from playwright.sync_api import Page, expect
from served_page import Server

WIDE = {"viewport": {"width": 1360, "height": 860}}
PHONE = {"viewport": {"width": 375, "height": 700}, "is_mobile": True, "has_touch": True}
SIGHTS = {
    "wide, light": WIDE,
    "wide, dark": WIDE | {"color_scheme": "dark"},
    "phone, light": PHONE,
    "phone, dark": PHONE | {"color_scheme": "dark"},
}
LONG_WORD = "deoxyribonucleotide" * 12


def states(page: Page, server: Server) -> Iterator[str]:
    """Brings the page from one state to the next, and names each."""
    yield "key asked"
    enter_key(page, "wrong-key")
    expect(page.locator("#key-error")).to_be_visible()
    yield "key refused"
    ready(page, note=f"{LONG_WORD}\n" + "Troponin was 2.4 ng/mL on arrival.\n" * 3)
    yield "before the question"
    ask(page, LONG_WORD)
    wait_for_answer(page)
    yield "answered"
    page.get_by_label("Model").select_option("rambles")
    begin_endless_answer(page)
    yield "answering"
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#remarks")).to_be_visible()
    yield "stopped"
    server.wait_until_idle("rambles")
    with server.full("rambles"):
        ask(page)
        expect(page.locator("#error")).to_be_visible()
    yield "refused"


@pytest.mark.parametrize("options", SIGHTS.values(), ids=SIGHTS)
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    open_page: OpenPage, server: Server, options: dict[str, Any]
) -> None:
    page = open_page(**options)
    found, seen = [], []
    for state in states(page, server):
        seen.append(state)
        results = Axe().run(page).response
        assert results["passes"]
        found += [
            (state, rule["id"], node["target"])
            for rule in results["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= options["viewport"]["width"], state
        # Nothing of the notice may scroll away or be covered.
        assert page.locator(".notice").is_visible()
        expect(page.locator(".notice")).to_be_in_viewport(ratio=1)
    assert found == []
    assert len(seen) == 7


def test_dark_and_light_are_chosen_by_the_system(open_page: OpenPage) -> None:
    def lightness(scheme: str) -> int:
        page = open_page(color_scheme=scheme)
        color = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))

    assert lightness("dark") < 200 < 600 < lightness("light")
