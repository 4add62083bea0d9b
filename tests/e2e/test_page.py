"""The page in a real Chromium: what people see, click and type, on a screen and a phone, by mouse and by keyboard."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from s3t_ray.proof.run_log import verify_certificate
from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, SERVE_TOKEN, Tokens
from s3t_ray.serve.access.token_guard import App
from s3t_ray.serve.http import make_front_app
from s3t_ray.serve.page.page_routes import page_app
from s3t_ray.serve.page.page_token import OneToken
from s3t_ray.serve.page.run_desk import Comparison, RunDesk
from tests.cluster.raylets import free_port, wait_for
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.serving import FakeBackend

TOKEN = "a-token-of-this-test"
ASK, ERASE = "ask-token-of-this-test", "erase-token-of-this-test"
FORGED = '{"ids": ["r3"], "subjects": ["'
EVIL = '<img src=x onerror="document.title=1">'
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class EchoModel:
    """A fake of both models, because these tests only cover the page's prompt and answers."""

    def ask(self, prompt: str) -> Comparison:
        return Comparison(base=f"base says {prompt}", live=f"live says {EVIL}", depths=(2, 1), seconds=0.1)


@dataclass(frozen=True)
class Served:
    cluster: Cluster
    address: str


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "the page is tested in a real Chromium: install one (Debian, Ubuntu: apt-get install chromium)"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    fake_base(tmp_path / "base")
    people = [(f"r{number}", EVIL if number == 0 else f"p{number % 5}") for number in range(20)]
    write_records(tmp_path / "data.jsonl", people)
    made = Cluster(small_config(tmp_path))
    made.settle()
    yield made
    made.run.close()


@contextmanager
def listening(app: App, path: str = "/") -> Iterator[str]:
    """The address of `app`, while a real server serves it."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for("the page is served", lambda: server.started, 60)
    yield f"http://127.0.0.1:{port}{path}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def served(cluster: Cluster) -> Iterator[Served]:
    """`s3t ui`."""
    with listening(page_app(RunDesk(cluster.run, EchoModel()), OneToken(TOKEN))) as address:
        yield Served(cluster, address)


@pytest.fixture
def service(cluster: Cluster) -> Iterator[Served]:
    """The root of the HTTP service, with its tokens, under a prefix."""
    tokens = Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE})
    front = make_front_app(FakeBackend(), tokens, RunDesk(cluster.run, EchoModel()))
    with listening(Starlette(routes=[Mount("/under", front)]), "/under") as address:
        yield Served(cluster, address)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, served: Served) -> Iterator[Page]:
    opened = context.new_page()
    errors: list[str] = []
    elsewhere: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "request",
        lambda asked: None if asked.url.startswith((served.address, "blob:", "data:")) else elsewhere.append(asked.url),
    )
    yield opened
    assert errors == []
    assert elsewhere == [], "the page asked for something from elsewhere"


def open_page(page: Page, served: Served) -> None:
    page.goto(f"{served.address}#token={TOKEN}")
    expect(page.locator("#run-name")).to_have_text(served.cluster.run.row.name)


def test_a_deletion_by_form_from_preview_to_a_certificate_that_checks(page: Page, served: Served) -> None:
    open_page(page, served)
    assert TOKEN not in page.url
    expect(page.locator("#run-state")).to_have_text("settled")
    expect(page.locator(".shard")).to_have_count(2)
    page.get_by_label("People, one per line").fill(f"p4\n{EVIL}\nnobody@example.org")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#impact")).to_contain_text("5 records would be deleted.")
    expect(page.locator("#impact")).to_contain_text("Not in this run: nobody@example.org")
    assert not served.cluster.run.ledger.deletions(), "a preview changes nothing"
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator("#impact")).to_contain_text("can no longer be lost")
    (row,) = served.cluster.run.ledger.deletions()
    expect(page.locator("#impact code")).to_have_text(row.receipt.request_id)
    expect(page.locator("#deletions .done")).to_have_text(["accepted"])
    expect(page.locator("#run-state")).to_have_text("1 open deletion")
    served.cluster.settle()
    expect(page.locator("#no-deletions")).to_have_text("Every deletion is finished.", timeout=15_000)
    page.get_by_role("button", name="All").click()
    expect(page.locator("#deletions .done")).to_have_text(["accepted", "pruned", "purged", "restored"])
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download", exact=True).click()
    text = Path(saved.value.path()).read_text()
    assert verify_certificate(text, served.cluster.run.keys.public_key_pem).facts.request_id == row.receipt.request_id
    with page.expect_download() as key:
        page.get_by_text("Download the public key").click()
    assert Path(key.value.path()).read_bytes() == served.cluster.run.keys.public_key_pem
    assert page.locator("figure .mark").count() == 2
    assert page.locator("img").count() == 0, "what people wrote is text"


def test_the_preview_can_be_taken_back(page: Page, served: Served) -> None:
    open_page(page, served)
    page.get_by_label("Record ids, one per line").fill("r3")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Delete for good")).to_be_hidden()
    page.get_by_label("Record ids, one per line").fill("unknown")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#impact")).to_contain_text("0 records would be deleted.")
    expect(page.get_by_role("button", name="Delete for good")).to_be_hidden()
    assert not served.cluster.run.ledger.deletions()


def test_base_and_live_answer_beside_each_other(page: Page, served: Served) -> None:
    open_page(page, served)
    page.get_by_label("Prompt").fill("Who are you?")
    page.get_by_role("button", name="Ask base and live model").click()
    expect(page.locator("#answers")).to_contain_text("base says Who are you?")
    expect(page.locator("#answers")).to_contain_text(f"live says {EVIL}")
    expect(page.locator("#answers")).to_contain_text("depth 2, 1")


def test_without_a_token_there_is_nothing_to_see_and_a_wrong_one_is_told(page: Page, served: Served) -> None:
    page.goto(served.address)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.locator("#content")).to_be_hidden()
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("does not give access to this service")).to_be_visible()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_visible()
    page.reload()
    expect(page.locator("#content")).to_be_visible()


def test_in_the_service_a_token_becomes_a_cookie_and_a_second_one_adds_its_rights(
    context: BrowserContext, service: Served
) -> None:
    page = context.new_page()
    sent: list[Request] = []
    page.on("request", lambda asked: sent.append(asked))
    page.goto(service.address)  # without its closing slash
    page.get_by_label("Token").fill(ASK)
    page.keyboard.press("Enter")
    expect(page.locator("#run-name")).to_have_text(service.cluster.run.row.name)
    expect(page.get_by_role("heading", name="Ask the model")).to_be_visible()
    expect(page.get_by_role("heading", name="Delete", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Use another token too").click()
    page.get_by_label("Token").fill(ERASE)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Delete", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="Ask the model")).to_be_visible()
    page.get_by_label("Record ids, one per line").fill("r3")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator("#impact")).to_contain_text("can no longer be lost")
    assert len(service.cluster.run.ledger.deletions()) == 1
    (cookie,) = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/under/ui")
    assert page.evaluate("document.cookie + JSON.stringify([localStorage, sessionStorage])") == "[{},{}]"
    tokens = (ASK, ERASE)
    assert not [asked.url for asked in sent if any(token in asked.url for token in tokens)]
    carrying = [asked.url for asked in sent if any(token in (asked.post_data or "") for token in tokens)]
    assert carrying == [f"{service.address}/ui/session"] * 2
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert context.cookies() == []
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.locator("#content")).to_be_hidden()


def test_another_site_cannot_delete_with_the_cookie_of_the_page(context: BrowserContext, service: Served) -> None:
    page = context.new_page()
    page.goto(service.address)
    page.get_by_label("Token").fill(ERASE)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Delete", exact=True)).to_be_visible()
    target = f"{service.address}/ui/deletions"
    form = f"<form method=post enctype=text/plain action={target}><input name='{FORGED}' value='\"]}}'></form>"
    other = Response(f"<!doctype html>{form}<script>document.forms[0].submit()</script>", media_type="text/html")
    with listening(Starlette(routes=[Route("/", lambda _: other)])) as elsewhere:
        forging = context.new_page()
        with forging.expect_response(target) as refused:  # the same host, another port: the cookie goes with it
            forging.goto(elsewhere)
        assert refused.value.status == 401
        with forging.expect_response(target) as refused:
            forging.goto(elsewhere.replace("127.0.0.1", "localhost"))
        assert refused.value.status == 401
    assert not service.cluster.run.ledger.deletions()


def test_by_keyboard_alone(page: Page, served: Served) -> None:
    open_page(page, served)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_label("Record ids, one per line").focus()
    page.keyboard.type("r3")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Delete for good")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#impact")).to_contain_text("Receipt")
    assert len(served.cluster.run.ledger.deletions()) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read_in_light_and_dark(browser: Browser, served: Served, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 700}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    open_page(page, served)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    ink, ground = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert contrast(ink, ground) > 7  # WCAG AAA for text
    context.close()


def test_a_service_that_is_gone_is_told_and_comes_back(page: Page, served: Served) -> None:
    open_page(page, served)
    page.route("**/ui/status", lambda route: route.abort())
    expect(page.locator("#problem")).to_contain_text("cannot be reached", timeout=15_000)
    page.unroute("**/ui/status")
    expect(page.locator("#problem")).to_be_hidden(timeout=15_000)


def contrast(one: str, two: str) -> float:
    """WCAG's contrast ratio of two colors as `rgb(r, g, b)`."""

    def luminance(color: str) -> float:
        parts = [int(part) / 255 for part in json.loads(f"[{color[4:-1]}]")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(two)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
