"""The page of a sheet from a disk in a real browser: graded by keyboard, closed, opened, saved, read back."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from invented_study import draw
from playwright.sync_api import Browser, BrowserContext, Page, expect

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.sheets.key import Key
from asclepius_ray.evaluation.sheets.reading import collect_grades, read_entries

OpenSheet = Callable[..., Page]
WIDE = {"viewport": {"width": 1360, "height": 860}}
PHONE = {"viewport": {"width": 375, "height": 700}, "is_mobile": True, "has_touch": True}
SIGHTS = {
    "wide, light": WIDE,
    "wide, dark": WIDE | {"color_scheme": "dark"},
    "phone, light": PHONE,
    "phone, dark": PHONE | {"color_scheme": "dark"},
}


@pytest.fixture
def key(study: Folder, tmp_path: Path) -> Key:
    return draw(study, tmp_path / "out", num_items=6, overlap=0.5).key


@pytest.fixture
def open_sheet(browser: Browser, key: Key, tmp_path: Path) -> Iterator[OpenSheet]:
    """Opens anna's page from the disk, without a network; nothing goes wrong in it and nothing is asked."""
    contexts: list[BrowserContext] = []
    asked, wrong = list[str](), list[str]()

    def open_one(context: BrowserContext | None = None, rater: str = "anna", **options: Any) -> Page:
        if context is None:
            context = browser.new_context(offline=True, **options)
            contexts.append(context)
            context.set_default_timeout(20_000)
            context.on("request", lambda request: asked.append(request.url))
            context.on("console", lambda message: wrong.append(message.text))
            context.on("weberror", lambda error: wrong.append(str(error.error)))
        page = context.new_page()
        page.goto((tmp_path / "out" / f"sheet-{rater}.html").as_uri())
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == []
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "blob:"))] == []


def grade_item_by_keyboard(page: Page, grades: str) -> None:
    """From the item's heading, where the focus is, by Tab and digits alone."""
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "radio":
            break
    for digit in grades:
        page.keyboard.press(digit)


def save(page: Page, folder: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    assert download.value.suggested_filename == "grades-anna.json"
    download.value.save_as(folder / "grades-anna.json")
    saved: dict[str, Any] = json.loads((folder / "grades-anna.json").read_text())
    return saved


def test_graded_by_keyboard_closed_opened_saved_and_read_back(
    open_sheet: OpenSheet, key: Key, tmp_path: Path
) -> None:
    page = open_sheet()
    items = key.assignment["anna"]
    typed = ["431", "124", "222", "143"]
    assert len(items) == len(typed)
    page.locator(f"#{items[0].code} h2").focus()
    for index, digits in enumerate(typed[:3]):
        grade_item_by_keyboard(page, digits)
        expect(page.locator("#progress-text")).to_have_text(f"{3 * (index + 1)} of 12 answers graded")
        # The key that graded the last answer went on to the button; there Enter is the next item.
        page.keyboard.press("Enter")
        expect(page.locator(f"#{items[index + 1].code} h2")).to_be_focused()
    page.get_by_label("Comment on answer B").locator("visible=true").fill('=cmd|"x" — 2 mg, “ok”')

    context = page.context
    page.close()
    page = open_sheet(context)
    expect(page.locator("#progress-text")).to_have_text("9 of 12 answers graded")
    expect(page.locator(f"#{items[3].code}")).to_be_visible()
    saved = save(page, tmp_path)
    expect(page.get_by_role("status")).to_contain_text("3 answers have no grade yet")
    assert sum(row["grade"] is None for row in saved["grades"]) == 3
    page.locator(f"#{items[3].code} h2").focus()
    grade_item_by_keyboard(page, typed[3])
    expect(page.get_by_role("button", name="Save")).to_be_focused()
    saved = save(page, tmp_path)
    expect(page.get_by_role("status")).to_contain_text("every answer has a grade")
    assert [row["comment"] for row in saved["grades"] if row["comment"]] == ['=cmd|"x" — 2 mg, “ok”']

    content = (tmp_path / "grades-anna.json").read_bytes()
    read = collect_grades({"anna": read_entries(content, "grades-anna.json")}, key)
    assert read == {
        "anna": {
            (item.item_id, model): int(digit)
            for item, digits in zip(items, typed, strict=True)
            for model, digit in zip(item.models, digits, strict=True)
        }
    }


def test_a_grade_by_mouse_is_changed_and_the_next_open_answer_is_found(
    open_sheet: OpenSheet, key: Key, tmp_path: Path
) -> None:
    page = open_sheet()
    first = page.locator(f"#{key.assignment['anna'][0].code}")
    for label, grade in (
        ("A", "4 Excellent"),
        ("B", "2 Poor"),
        ("C", "1 Unacceptable"),
        ("A", "3 Satisfactory"),
    ):
        first.get_by_role("group", name=f"Grade of answer {label}").get_by_text(grade).click()
    page.get_by_role("button", name="Next ungraded").click()
    expect(page.locator(f"#{key.assignment['anna'][1].code}")).to_be_visible()
    expect(first).to_be_hidden()
    page.get_by_role("button", name="Previous").click()
    assert [row["grade"] for row in save(page, tmp_path)["grades"][:4]] == [3, 2, 1, None]


def test_two_sheets_in_one_browser_keep_their_grades_apart(open_sheet: OpenSheet, key: Key) -> None:
    page = open_sheet()
    page.locator(f"#{key.assignment['anna'][0].code} h2").focus()
    grade_item_by_keyboard(page, "123")
    other = open_sheet(page.context, rater="ben")
    expect(other.locator("#progress-text")).to_contain_text("0 of ")
    again = open_sheet(page.context)
    expect(again.locator("#progress-text")).to_contain_text("3 of ")


def test_what_one_tab_grades_counts_in_the_other(open_sheet: OpenSheet, key: Key) -> None:
    first = open_sheet()
    second = open_sheet(first.context)
    first.locator(f"#{key.assignment['anna'][0].code} h2").focus()
    grade_item_by_keyboard(first, "12")
    expect(first.locator("#progress-text")).to_contain_text("2 of ")
    expect(second.locator("#progress-text")).to_contain_text("2 of ")
    second.locator(f"#{key.assignment['anna'][0].code} [data-label=C] [value='4']").check()
    expect(first.locator("#progress-text")).to_contain_text("3 of ")


def test_a_grade_undoes_none_that_another_tab_kept_even_if_it_was_not_told(
    open_sheet: OpenSheet, key: Key
) -> None:
    first = open_sheet()
    second = open_sheet(first.context)
    second.evaluate("addEventListener('storage', (event) => event.stopImmediatePropagation(), true)")
    grade = f"#{key.assignment['anna'][0].code} [data-label={{}}] [value='4']"
    first.locator(grade.format("A")).check()
    # A browser brings what one process stored to the other's, without a word to this page.
    second.wait_for_function("() => Object.values({...localStorage}).some((kept) => kept.includes(':4'))")
    second.get_by_role("button", name="Next", exact=True).click()
    second.get_by_role("button", name="Previous").click()
    second.locator(grade.format("B")).check()
    expect(second.locator("#progress-text")).to_contain_text("2 of ")
    expect(open_sheet(first.context).locator("#progress-text")).to_contain_text("2 of ")


def test_what_was_saved_to_a_file_alone_is_there_after_the_next_grade_and_a_look(
    open_sheet: OpenSheet, key: Key, tmp_path: Path
) -> None:
    page = open_sheet()
    grade = f"#{key.assignment['anna'][0].code} [data-label={{}}] [value='4']"
    page.locator(grade.format("A")).check()
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('full'); }; }")
    page.locator(grade.format("B")).check()
    save(page, tmp_path)
    page.evaluate("dispatchEvent(new Event('focus'))")
    page.locator(grade.format("C")).check()
    assert [row["grade"] for row in save(page, tmp_path)["grades"][:3]] == [4, 4, 4]


def test_a_browser_that_keeps_nothing_is_told_of(browser: Browser, key: Key, tmp_path: Path) -> None:
    context = browser.new_context(offline=True)
    context.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied'); } });"
    )
    page = context.new_page()
    page.goto((tmp_path / "out" / "sheet-anna.html").as_uri())
    expect(page.locator("#not-kept")).to_be_visible()
    page.locator("fieldset input").first.check()
    assert save(page, tmp_path)["grades"][0]["grade"] == 1
    context.close()


@pytest.mark.parametrize("options", SIGHTS.values(), ids=SIGHTS)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    open_sheet: OpenSheet, options: dict[str, Any]
) -> None:
    page = open_sheet(**options)
    found = []
    for state in ("open", "graded", "second item"):
        if state == "graded":
            page.locator("fieldset:visible input").nth(2).check()
        if state == "second item":
            page.get_by_role("button", name="Next", exact=True).click()
        results = Axe().run(page).response
        assert results["passes"]
        found += [
            (state, rule["id"], node["target"])
            for rule in results["violations"]
            for node in rule["nodes"]
            if rule["impact"] in ("serious", "critical", "moderate")
        ]
        assert page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"], state
    assert found == []


def test_dark_and_light_are_chosen_by_the_system(open_sheet: OpenSheet) -> None:
    def lightness(scheme: str) -> int:
        page = open_sheet(color_scheme=scheme)
        color = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))

    assert lightness("dark") < 200 < 600 < lightness("light")
