"""A browser, a server, and pages that are watched while a test uses them."""

from collections.abc import Iterator
from typing import Any

import pytest
from chromium import browser as browser
from page_use import OpenPage
from playwright.sync_api import Browser, ConsoleMessage, Page, Request
from reciting_model import save_reciting_model
from served_page import (
    KEY,
    MARKUP,
    RECITED,
    SHORT_CONTEXT_TOKENS,
    Server,
    load_model,
    load_rambling_model,
    serve,
)

PATIENCE_MILLISECONDS = 60_000
WATCH_POLICY = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three models: one recites a sentence, one rambles without end, one says what looks like markup."""
    root = tmp_path_factory.mktemp("models")
    recites = save_reciting_model(root / "recites", RECITED, SHORT_CONTEXT_TOKENS)
    markup = save_reciting_model(root / "markup", MARKUP, SHORT_CONTEXT_TOKENS)
    models = [load_model(recites, "recites", 64), load_model(markup, "markup", 64)]
    with serve(*models, load_rambling_model(root / "rambles")) as running:
        yield running


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[OpenPage]:
    """Opens the page in a context of its own; in the end none of them did what a page must not do."""
    contexts, pages = [], list[Page]()
    asked, wrong = list[str](), list[str]()

    def note_console(message: ConsoleMessage) -> None:
        # The browser itself writes down each response that is an error.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    def note_request(request: Request) -> None:
        asked.append(request.url)

    def open_one(path: str = "/", base: str = "", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MILLISECONDS)
        context.add_init_script(WATCH_POLICY)
        context.on("request", note_request)
        context.on("console", note_console)
        context.on("weberror", lambda error: wrong.append(str(error.error)))
        page = context.new_page()
        page.goto((base or server.url) + path)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        wrong += page.evaluate("window.violations")
    for context in contexts:
        context.close()
    assert wrong == []
    assert asked
    assert not any(KEY in url for url in asked)
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:"))] == []
