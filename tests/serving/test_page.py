"""A whole visit to the page, in a browser, with a keyboard; nothing but the service is asked for anything."""

import os
import re
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from recflow.serving.app import WEB
from tests.serving.made_up import make_bundle
from tests.serving.processes import bentoml_serve, server

expect.set_options(timeout=20_000)

KEY = "a-long-enough-key"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("RECFLOW_NEEDS_CHROMIUM"), reason="there is no Chromium"
)


@pytest.fixture(scope="module")
def url(bundle, tmp_path_factory):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    other = make_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=1, plugin="bpr-mf")
    settings = {"RECFLOW_BUNDLE": f"{bundle},{other}", "RECFLOW_API_KEY": KEY}
    with server(bentoml_serve(port), port, tmp_path_factory.mktemp("log"), **settings) as running:
        yield running.url


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, url):
    """A page on which somebody has given the key; what went wrong in it is a failure at the end."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce").new_page()
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(url)
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    expect(cards(page)).to_have_count(12)
    yield page
    assert {address.split("/")[2] for address in asked if address.startswith("http")} == {url.split("/")[2]}
    assert wrong == []
    page.context.close()


def cards(page):
    return page.locator("#cards .card:not(.waiting)")


def shown(page):
    return cards(page).locator("h3").all_inner_texts()


def status(page):
    return page.locator("#status")


def test_a_wrong_key_is_told_kindly_and_asked_for_again(browser, url):
    page = browser.new_page()
    page.goto(url)
    expect(page.get_by_role("heading", name="This service asks for a key")).to_be_visible()
    page.get_by_label("API key").fill("not-the-right-one")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("That key was not taken")
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    expect(cards(page)).to_have_count(12)
    page.close()


def test_someone_new_by_keyboard_alone(visit):
    page = visit
    expect(status(page)).to_contain_text("the popular ones")
    assert shown(page)[0] == "Movie 0 <&>"  # text, not markup
    expect(cards(page).first).to_contain_text("60 ratings")

    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.get_by_role("combobox", name="Movies you liked").focus()
    page.keyboard.type("movie 2")
    options = page.locator("#options").get_by_role("option")
    expect(options).to_have_count(8)
    page.keyboard.press("ArrowDown")
    chosen = page.locator("#options [aria-selected=true]")
    expect(chosen).to_have_id("option-1")
    name = chosen.inner_text().splitlines()[0]
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("For you")
    expect(status(page)).to_contain_text("12 movies, from the movie you named")
    expect(cards(page).locator(".why").first).to_contain_text(f"because you liked {name.partition(' (')[0]}")
    assert name.partition(" (")[0] not in shown(page)

    page.get_by_role("radio", name="1 of 5").check(force=True)  # not liked, then: nothing to go by
    expect(status(page)).to_contain_text("since nothing here was liked")
    page.get_by_role("button", name=f"Remove {name}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What to watch next")


def test_a_user_of_the_data_with_every_wish(visit, url, recommender):
    page = visit
    page.get_by_label("A user of the data").check()
    page.get_by_label("User id").fill("3")
    expect(page.get_by_role("heading", level=1)).to_have_text("For user 3")
    expect(cards(page)).to_have_count(12)
    expected = recommender.recommend(3, 12).recommendations
    assert shown(page) == [found.item.title.partition(" (")[0] for found in expected]

    page.get_by_label("How many").fill("4")
    expect(cards(page)).to_have_count(4)
    page.get_by_label("Variety").fill("0.9")
    expect(cards(page).nth(3).locator("h3")).not_to_have_text(expected[3].item.title.partition(" (")[0])
    page.get_by_role("button", name="Sci-Fi").click()
    expect(cards(page).filter(has_text="Sci-Fi")).to_have_count(4)
    page.get_by_role("button", name="Sci-Fi").click()  # the second time: not these
    expect(cards(page).filter(has_text="Sci-Fi")).to_have_count(0)
    expect(cards(page)).to_have_count(4)
    page.get_by_label("From year").fill("1999")
    page.get_by_role("button", name="Comedy").click()
    expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()
    page.get_by_role("button", name="Clear the filters").click()
    expect(cards(page)).to_have_count(4)

    page.get_by_label("Model", exact=True).select_option("bpr-mf")
    expect(page.locator("#served")).to_contain_text("bpr-mf on made-up")
    expect(cards(page).first.locator("h3")).not_to_have_text(expected[0].item.title.partition(" (")[0])


def test_what_is_similar_opens_on_a_click_and_leads_on(visit):
    page = visit
    page.get_by_role("button", name="More like Movie 0").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_contain_text("More like Movie 0")
    expect(dialog.locator(".card:not(.waiting)")).to_have_count(8)
    name = dialog.locator("h3").first.inner_text()
    dialog.get_by_role("button", name=re.compile("^More like")).first.click()
    expect(dialog.get_by_role("heading", level=2)).to_contain_text(f"More like {name}")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="I liked Movie 1 <").click()
    expect(page.get_by_role("list", name="Your movies").get_by_role("listitem")).to_have_count(1)


def test_what_goes_wrong_is_said_and_can_be_mended(visit):
    page = visit
    page.get_by_label("A user of the data").check()
    page.get_by_label("User id").fill("nobody")
    expect(page.locator("#message")).to_contain_text("There is no user 'nobody'")
    page.context.set_offline(True)
    page.get_by_label("User id").fill("3")
    expect(page.locator("#message")).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(cards(page)).to_have_count(12)
    expect(page.locator("#message")).to_be_hidden()


def test_a_narrow_screen_scrolls_one_way_only(visit):
    for width in (320, 768):
        visit.set_viewport_size({"width": width, "height": 800})
        assert visit.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(theme):
    block = re.findall(r":root \{(.*?)\}", (WEB / "base.css").read_text(), re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): #([0-9a-f]{6})", block))

    def light(name):
        parts = [int(colours[name][place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    pairs = [(text, ground) for text in ("ink", "muted", "accent") for ground in ("paper", "card", "wash")]
    for text, ground, least in [(*pair, 4.5) for pair in pairs] + [("on-accent", "accent", 4.5), ("edge", "card", 3)]:
        high, low = sorted((light(text), light(ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= least, (text, ground)
