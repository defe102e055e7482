"""What a user does on the page, and what is read off it."""

import base64
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect
from served_page import KEY, RECITED

OpenPage = Callable[..., Page]
NOTE = (
    "Admission 🌙🩺: A 58-year-old woman came with chest pain.\n"
    "Troponin was 2.4 ng/mL on arrival. A 𝒩urse 😀 saw her.\n"
    "Aspirin 100 mg was begun.\n"
    "Follow-up in May."
)
PASSAGES = ["Troponin was 2.4 ng/mL on arrival.", "Aspirin 100 mg was begun."]
ANSWER = "".join(RECITED)
expect.set_options(timeout=60_000)


def enter_key(page: Page, key: str = KEY) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use key").click()


def sign_in(page: Page, key: str = KEY) -> Page:
    enter_key(page, key)
    expect(page.get_by_role("dialog")).to_be_hidden()
    return page


def ready(page: Page, model: str = "recites", note: str = NOTE) -> Page:
    """With a key, a note and a model; what is asked is left to the test."""
    sign_in(page)
    page.locator("#note").fill(note)
    page.get_by_label("Model").select_option(model)
    return page


def ask(page: Page, question: str = "What was given?") -> None:
    page.get_by_label("What is asked of the note").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def wait_for_answer(page: Page) -> None:
    expect(page.locator("#figures")).to_be_visible()


def begin_endless_answer(page: Page) -> None:
    """The rambling model's answer is on the page, and goes on."""
    ask(page)
    expect(page.locator("#answer")).to_contain_text("word19")
    assert page.get_by_role("button", name="Stop").is_visible()


def drop_file(page: Page, name: str, content: bytes, kind: str = "text/plain", copies: int = 1) -> None:
    """As a user drops files from the desktop: the same events, with the same data."""
    page.evaluate(
        """([name, content, kind, copies]) => {
            const data = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            for (let i = 0; i < copies; i++) data.items.add(new File([bytes], name, { type: kind }));
            for (const type of ["dragenter", "dragover", "drop"]) {
                const init = { dataTransfer: data, bubbles: true, cancelable: true };
                document.querySelector("main").dispatchEvent(new DragEvent(type, init));
            }
        }""",
        [name, base64.b64encode(content).decode(), kind, copies],
    )


def marks(page: Page) -> list[str]:
    return page.locator("#note-view mark").all_text_contents()


def stored(page: Page) -> dict[str, Any]:
    """What the page has left in the browser."""
    kept: dict[str, Any] = page.evaluate(
        "({ local: Object.values({ ...localStorage }), session: Object.values({ ...sessionStorage }),"
        " cookies: document.cookie, address: location.href })"
    )
    return kept
