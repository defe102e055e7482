"""The page in Chromium against a real server: what its user can do, and what it never does."""

import json

import httpx
import pytest
from conftest import OpenPage
from page_use import (
    ANSWER,
    NOTE,
    PASSAGES,
    ask,
    begin_endless_answer,
    drop_file,
    enter_key,
    marks,
    ready,
    sign_in,
    stored,
    wait_for_answer,
)
from playwright.sync_api import Page, expect
from served_page import (
    KEY,
    MARKUP,
    MOST_RAMBLED_TOKENS,
    SHORT_CONTEXT_TOKENS,
    Server,
    load_rambling_model,
    serve,
)

from asclepius_ray.records import Task


def test_the_key_is_asked_for_and_a_wrong_one_is_told(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    enter_key(page, "wrong-key")
    expect(page.locator("#key-error")).to_contain_text("The key was not accepted")
    enter_key(page, "two words")
    expect(page.locator("#key-error")).to_contain_text("no spaces")
    enter_key(page)
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.get_by_role("radio").count() == len(Task)


def test_the_key_is_kept_in_memory_and_in_the_tab_only_if_asked(open_page: OpenPage) -> None:
    page = sign_in(open_page())
    assert KEY not in json.dumps(stored(page))
    page.reload()
    page.get_by_label("Remember in this tab").check()
    enter_key(page)
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.reload()
    expect(page.get_by_role("radio")).to_have_count(len(Task))
    kept = stored(page)
    assert kept == {"local": [], "session": [KEY], "cookies": "", "address": page.url}
    assert KEY not in page.url
    page.get_by_role("button", name="Change key").click()
    page.get_by_role("button", name="Forget key").click()
    assert stored(page)["session"] == []


def test_a_task_is_answered_with_its_passages_its_counts_and_times(open_page: OpenPage) -> None:
    page = ready(open_page())
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.post_data else None)
    page.get_by_role("radio", name="Summarization").check(force=True)
    assert page.get_by_label("What is asked of the note").input_value()
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_for_answer(page)
    assert page.locator("#answer").text_content() == ANSWER
    assert sent == [{"note": NOTE, "task": "summarization", "stream": True, "model": "recites"}]
    figures = page.locator("#figures").inner_text()
    assert "14 tokens" in figures
    assert figures.count(" s") >= 2
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == ANSWER


def test_a_question_of_ones_own_marks_the_right_characters_behind_astral_ones(open_page: OpenPage) -> None:
    page = ready(open_page())
    ask(page, "What was given, and when? 🩺")
    wait_for_answer(page)
    assert marks(page) == PASSAGES
    assert page.locator("#note-view").text_content() == NOTE
    assert page.get_by_role("button", name="Show passage 1 of 2").count() == 1
    # A screen reader is told where a marked passage begins and ends.
    assert "marked passage begins" in page.evaluate(
        "getComputedStyle(document.querySelector('mark'), '::before').content"
    )


def test_the_best_passage_is_scrolled_into_view(open_page: OpenPage) -> None:
    # Of so long a note only the first sentences are kept: the passage is one of them, and out of sight.
    filler = "Nothing else.\n\n\n\n\n"
    page = ready(open_page(), note=filler * 15 + PASSAGES[0] + "\n" + filler * 400)
    ask(page)
    wait_for_answer(page)
    expect(page.locator("#remarks")).to_contain_text("The note was shortened")
    expect(page.locator("mark").first).to_be_in_viewport()


def test_an_answer_is_seen_while_it_grows_and_stop_ends_it_on_the_server(
    open_page: OpenPage, server: Server
) -> None:
    page = ready(open_page(), "rambles")
    made_before = server.engine("rambles").stats().generated_tokens
    begin_endless_answer(page)
    assert server.engine("rambles").stats().running_requests == 1
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#remarks")).to_contain_text("You stopped this answer")
    assert server.wait_until_idle("rambles")
    assert server.engine("rambles").stats().generated_tokens - made_before < MOST_RAMBLED_TOKENS
    assert "word0" in (page.locator("#answer").text_content() or "")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()


def test_a_screen_reader_is_given_whole_sentences(open_page: OpenPage) -> None:
    page = ready(open_page(), "rambles")
    begin_endless_answer(page)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#spoken p").last).to_have_text("Stopped.")
    *sentences, _, _ = page.locator("#spoken p").all_text_contents()
    assert sentences
    assert all(sentence.endswith(". ") or sentence.endswith(".") for sentence in sentences)
    assert page.locator("#answer").get_attribute("aria-live") is None


@pytest.mark.parametrize("model", ["recites", "markup"])
def test_markup_in_a_note_or_an_answer_stays_text(open_page: OpenPage, model: str) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    page = ready(open_page(), model, note=f"{evil}\n{NOTE}")
    ask(page, f"What is {evil}?")
    wait_for_answer(page)
    assert evil in (page.locator("#note-view").text_content() or "")
    assert page.locator("#answer").text_content() == ("".join(MARKUP) if model == "markup" else ANSWER)
    assert page.locator("main img").count() == page.locator("main script").count() == 0
    assert page.title().startswith("Asclepius")


def test_a_dropped_or_opened_text_file_becomes_the_note(open_page: OpenPage) -> None:
    page = sign_in(open_page())
    drop_file(page, "note.txt", NOTE.encode())
    expect(page.locator("#note")).to_have_value(NOTE)
    page.locator("#file-input").set_input_files(
        {"name": "b.txt", "mimeType": "text/plain", "buffer": "Zweite Notiz: müde.".encode()}
    )
    expect(page.locator("#note")).to_have_value("Zweite Notiz: müde.")


WRONG_FILES = [
    (b"%PDF-1.7 text", 1, "not a text file"),
    (b"\xff\xfe\xff", 1, "not plain text in UTF-8"),
    (b"a\0b", 1, "not a text file"),
    (b" \n", 1, "empty"),
    (b"a", 2, "one text file at a time"),
    (b"a" * 1_100_000, 1, "larger than 1 MiB"),
]


def test_a_wrong_file_is_refused_with_words(open_page: OpenPage) -> None:
    page = sign_in(open_page())
    for content, copies, words in WRONG_FILES:
        page.locator("#note").fill("kept")
        assert page.locator("#note-error").is_hidden()
        drop_file(page, "scan.pdf", content, "application/pdf", copies)
        expect(page.locator("#note-error")).to_contain_text(words)
        assert page.locator("#note").input_value() == "kept"


def test_history_is_in_memory_until_it_is_kept_and_gone_when_it_is_cleared(open_page: OpenPage) -> None:
    page = ready(open_page())
    page.evaluate("sessionStorage.clear()")
    ask(page, "First question?")
    wait_for_answer(page)
    assert page.locator("#history button").count() == 1
    assert stored(page)["local"] == []
    expect(page.locator("#history-place")).to_contain_text("memory only")
    page.get_by_label("Keep on this device").check()
    expect(page.locator("#history-place")).to_contain_text("on this device")
    assert NOTE in json.loads(stored(page)["local"][0])[0]["note"]
    page.reload()
    page.get_by_role("button", name="Not now").click()
    page.get_by_role("button", name="First question?").click()
    assert page.locator("#answer").text_content() == ANSWER
    assert marks(page) == PASSAGES
    page.get_by_role("button", name="Clear history").click()
    assert page.locator("#history button").count() == 0
    assert json.loads(stored(page)["local"][0]) == []
    page.get_by_label("Keep on this device").uncheck()
    assert stored(page)["local"] == []


def test_everything_is_reached_and_done_by_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_label("Model").select_option("recites")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the note")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("Troponin was 2.4 ng/mL on arrival.")
    walk_to(page, "input[name='task']")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("radio", name="Abbreviation Expansion").is_checked()
    walk_to(page, "#question")
    page.keyboard.press("Control+Enter")
    wait_for_answer(page)
    for place in ("#copy-button", "#passage-list button", "#history button", "#keep-history", "#key-button"):
        walk_to(page, place)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    walk_to(page, "#passage-list button")
    page.keyboard.press("Enter")
    expect(page.locator("mark").first).to_be_focused()


def walk_to(page: Page, selector: str) -> None:
    """By the tabulator key alone."""
    for _ in range(60):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"the tabulator key does not reach {selector}")


def test_what_is_missing_is_said_at_its_field(open_page: OpenPage) -> None:
    page = sign_in(open_page())
    page.keyboard.press("Control+Enter")
    expect(page.locator("#note-error")).to_contain_text("Paste a note")
    expect(page.locator("#note")).to_be_focused()
    page.keyboard.type("A note.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#question-error")).to_contain_text("Write a question")
    expect(page.locator("#question")).to_be_focused()


def test_a_key_that_was_revoked_is_told_and_another_one_goes_on(open_page: OpenPage, server: Server) -> None:
    page = ready(open_page())
    server.keys.symmetric_difference_update({KEY, "another-key"})
    try:
        ask(page)
        expect(page.locator("#error")).to_contain_text("The key was not accepted")
        page.get_by_role("button", name="Enter another key").click()
        sign_in(page, "another-key")
        ask(page)
        wait_for_answer(page)
    finally:
        server.keys.symmetric_difference_update({KEY, "another-key"})


def test_a_full_server_is_told_with_a_countdown_after_which_one_can_ask_again(
    open_page: OpenPage, server: Server
) -> None:
    page = ready(open_page())
    with server.full("recites"):
        ask(page)
        expect(page.locator("#error")).to_contain_text("Too many requests")
        expect(page.locator("#error")).to_contain_text("Wait 1 second")
    again = page.get_by_role("button", name="Ask again", exact=True)
    expect(again).to_be_visible()
    again.click()
    wait_for_answer(page)
    assert page.locator("#error").is_hidden()


def test_a_question_that_does_not_fit_is_told_with_what_to_do(open_page: OpenPage) -> None:
    page = ready(open_page())
    ask(page, "Why? " * SHORT_CONTEXT_TOKENS)
    expect(page.locator("#error")).to_contain_text("This does not fit into the model")
    expect(page.locator("#error")).to_contain_text("Shorten the question or the note.")


def test_a_lost_network_is_told_and_nothing_is_lost(open_page: OpenPage) -> None:
    page = ready(open_page())
    page.context.set_offline(True)
    ask(page)
    expect(page.locator("#error")).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Ask again").click()
    wait_for_answer(page)


def test_an_engine_that_ends_is_told_within_the_answer_and_before_it(
    open_page: OpenPage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = load_rambling_model(tmp_path_factory.mktemp("fragile"))
    with serve(model) as fragile:
        page = sign_in(open_page(base=fragile.url))
        expect(page.locator("#model-name")).to_have_text("rambles")
        page.locator("#note").fill(NOTE)
        begin_endless_answer(page)
        model.engine.stop()
        expect(page.locator("#error")).to_contain_text("The server failed")
        expect(page.locator("#remarks")).to_contain_text("only the beginning")
        ask(page)
        expect(page.locator("#error")).to_contain_text("The model cannot answer now")


def test_the_page_works_below_a_prefix(open_page: OpenPage) -> None:
    page = ready(open_page("/prefix/"))
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    ask(page)
    wait_for_answer(page)
    assert [url.endswith("/prefix/v1/clinical/answers") for url in asked] == [True]


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js"])
def test_the_files_are_open_and_say_what_a_browser_may_do(server: Server, path: str) -> None:
    response = httpx.get(server.url + path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert httpx.get(server.url + "/v1/models").status_code == 401
