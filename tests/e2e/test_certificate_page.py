"""The certificate page in a real Chromium, from a file, without a network: what it checks and refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from s3t_ray import __version__
from s3t_ray.proof.certificate_page import certificate_page, read_page
from s3t_ray.proof.run_log import parse_entry
from s3t_ray.run import deletion
from s3t_ray.run.log.issued_certificates import entries_of
from s3t_ray.run.log.published_log import proof_of
from s3t_ray.run.reports import DeletionReceipt
from s3t_ray.tlog.signed_note import NoteSigner, SignedNote
from tests.e2e.test_page import NAMES, contrast
from tests.fakes import Cluster, fake_base, small_config, write_records

EVIL = '</script><img src=x onerror="document.title=1">\u2028'
"""A person's name, and the name of a run: what would break out of a page that took it for markup."""
FAILS = "This certificate FAILS its check"
WITHOUT_CRYPTO = "Object.defineProperty(crypto, 'subtle', {value: undefined})"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "the page is tested in a real Chromium: install one (Debian, Ubuntu: apt-get install chromium)"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("page")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", (EVIL, "ann", "ben")[number % 3]) for number in range(20)])
    made = Cluster(small_config(folder))
    made.settle()
    yield made
    made.run.close()


@pytest.fixture(scope="module")
def accepted(cluster: Cluster) -> DeletionReceipt:
    """A deletion of two people and a name that nobody has, restored."""
    receipt = deletion.accept(cluster.run, [], ["ann", EVIL, "nobody"])
    cluster.settle()
    return receipt


@pytest.fixture(scope="module")
def text(cluster: Cluster, accepted: DeletionReceipt) -> str:
    entries = entries_of(cluster.run, accepted.request_id)
    proof = proof_of(cluster.run, parse_entry(entries[-1]).facts.sequence)
    return certificate_page(entries, proof, __version__)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1000, "height": 900}, accept_downloads=True, offline=True)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    opened = context.new_page()
    errors: list[str] = []
    asked: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    yield opened
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []


def show(page: Page, folder: Path, text: str) -> None:
    path = folder / "certificate.html"
    path.write_text(text, encoding="utf-8", newline="\n")
    page.goto(path.as_uri())


def test_it_says_in_words_what_was_deleted_and_when(page: Page, text: str, tmp_path: Path, cluster: Cluster) -> None:
    show(page, tmp_path, text)
    expect(page.locator("#verdict-title")).to_have_text("Genuine and unchanged")
    expect(page.locator("#what")).to_contain_text("14 records of training data were deleted")
    expect(page.locator("#what")).to_contain_text("1 name in the request was not known")
    expect(page.locator("#what")).to_contain_text("has been trained again from the records that stay")
    expect(page.locator("#when li")).to_have_count(4)
    (row,) = cluster.run.ledger.deletions()
    assert page.locator("#when time").first.get_attribute("datetime") == row.times.accepted
    expect(page.locator("#checks")).to_contain_text("The signature fits")
    expect(page.locator("#checks")).to_contain_text("this browser’s own cryptography")
    expect(page.locator("#checks")).to_contain_text("belongs to the receipt")
    expect(page.locator("#checks")).to_contain_text("The log with 4 entries, signed by the model’s key, holds it there")
    expect(page.locator("#failed")).to_be_hidden()
    assert "ann" not in page.locator("#all").inner_text(), "it names nobody"


def test_what_was_signed_can_be_saved_as_it_was_signed(page: Page, text: str, tmp_path: Path) -> None:
    show(page, tmp_path, text)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save what was signed").click()
    assert tuple(Path(saved.value.path()).read_text().splitlines()) == read_page(text, __version__).entries


def test_the_key_is_compared_with_a_fingerprint_from_elsewhere(
    page: Page, text: str, tmp_path: Path, cluster: Cluster
) -> None:
    show(page, tmp_path, text)
    page.get_by_label("The fingerprint that you received").fill(f"SHA256:{cluster.run.keys.fingerprint.upper()}")
    page.keyboard.press("Enter")
    expect(page.locator("#key-answer")).to_contain_text("The same key.")
    page.get_by_label("The fingerprint that you received").fill("0" * 64)
    page.keyboard.press("Enter")
    expect(page.locator("#key-answer")).to_contain_text("Not the same key.")


def test_the_receipt_and_the_names_tell_whose_it_is(
    page: Page, text: str, tmp_path: Path, cluster: Cluster, accepted: DeletionReceipt
) -> None:
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    assert accepted.proof is not None
    own.write_text(accepted.proof.to_json())
    later = deletion.accept(cluster.run, ["r2"], [])
    assert later.proof is not None
    other.write_text(later.proof.to_json())
    show(page, tmp_path, text)
    check = page.get_by_role("button", name="Check whether it is mine")

    def answer(receipt: Path, subjects: str, ids: str = "") -> str:
        page.get_by_label("Your receipt").set_input_files(receipt)
        page.get_by_label("People that the request named").fill(subjects)
        page.get_by_label("Ids of records").fill(ids)
        page.locator("#mine-answer").evaluate("node => { node.textContent = '' }")
        check.click()
        expect(page.locator("#mine-answer")).not_to_be_empty()
        return page.locator("#mine-answer").inner_text()

    assert answer(own, f"nobody\n{EVIL}\nann\n\nann").startswith("Yes.")
    assert "not of exactly these names" in answer(own, "ann")
    assert "not of exactly these names" in answer(own, "", f"nobody\n{EVIL}\nann")
    assert answer(other, "ann").startswith("This receipt is for another deletion")
    (tmp_path / "junk").write_text("[]")
    assert answer(tmp_path / "junk", "ann").startswith("This is not a receipt")


def changed(text: str, change: Callable[[list[str]], object], proof: Callable[[str], str | None] = str) -> str:
    """The page with other entries or another proof, as an attacker who edits the file would write them."""
    data = read_page(text, __version__)
    entries = list(data.entries)
    change(entries)
    assert data.proof is not None
    held = json.dumps({"version": __version__, "entries": entries, "proof": proof(data.proof)}).replace("<", "\\u003c")
    return re.sub(r'(id="signed">).*?(</script>)', lambda found: found[1] + held + found[2], text, count=1, flags=re.S)


def edited(*places: tuple[str, str]) -> Callable[[list[str]], object]:
    """Edit the newest certificate's text."""

    def change(entries: list[str]) -> None:
        for old, new in places:
            entries[-1] = re.sub(old, new, entries[-1], count=1)

    return change


def forged(entries: list[str]) -> None:
    """An attacker without the run's key rewrites and signs all of it with another key."""
    stranger = Ed25519PrivateKey.generate()
    value = json.loads(entries[-1])
    value["facts"]["records"] = 999
    value["public_key"] = stranger.public_key().public_bytes_raw().hex()
    del value["signature"]
    said = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    value["signature"] = stranger.sign(f"{value['format']}\n{said}".encode()).hex()
    entries[-1] = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


TAMPERED: dict[str, tuple[Callable[[list[str]], object], str]] = {
    "a count": (edited((r'"records":14', '"records":140')), "does not fit the text"),
    "a time": (edited((r'"purged_at":"20', '"purged_at":"19')), "does not fit the text"),
    "the signature": (edited((r'"signature":"....', '"signature":"0000')), "does not fit the text"),
    "a key twice": (edited((r'"run":', '"run":"evil","run":')), "not as it was written"),
    "blanks": (edited((r",", ", ")), "not as it was written"),
    "cut off": (lambda entries: entries.append(entries.pop()[:-9]), "cannot be read"),
    "another format": (edited(("certificate/2", "certificate/1")), "does not fit the text"),
    "no certificate": (lambda entries: entries.__delitem__(slice(1, None)), "no certificate"),
    "the receipt left out": (lambda entries: entries.__delitem__(0), "receipt in this file is missing"),
    "a stranger's key": (forged, "by different keys"),
}


@pytest.mark.parametrize("crypto", ["its own", "none"])
def test_a_tampered_file_fails_and_says_so(page: Page, text: str, tmp_path: Path, crypto: str) -> None:
    if crypto == "none":
        page.add_init_script(WITHOUT_CRYPTO)
    for change, reason in TAMPERED.values():
        show(page, tmp_path, changed(text, change))
        expect(page.locator("#verdict-title")).to_have_text(FAILS)
        expect(page.locator("#verdict-text")).to_contain_text(reason)
        expect(page.locator("#verdict-text")).to_contain_text("Do not rely on this file")
        expect(page.locator("#content")).to_be_hidden()
        assert page.locator("#what *").count() == 0, "nothing is told as a fact"


def other_proofs(text: str) -> dict[str, tuple[Callable[[str], str], str]]:
    """Changes to the proof of inclusion, and the page's message for each."""
    note = SignedNote.parse((read_page(text, __version__).proof or "").partition("\n\n")[2])
    lines = note.text.split("\n")
    longer = "\n".join([lines[0], str(int(lines[1]) + 1), *lines[2:]])
    stranger = NoteSigner.of(lines[0], Ed25519PrivateKey.generate())
    return {
        "another head": (lambda proof: proof.replace(note.text, longer), "the head was changed"),
        "a stranger's head": (
            lambda proof: f"{proof.partition(chr(10) * 2)[0]}\n\n{stranger.sign(note.text)}",
            "not signed",
        ),
        "another place": (lambda proof: proof.replace("index 3", "index 2"), "not in the log at the place"),
        "a hash less": (lambda proof: re.sub(r"(index 3\n)[^\n]+\n", r"\1", proof), "not in the log at the place"),
        "another hash": (lambda proof: re.sub(r"(index 3\n)....", r"\1AAAA", proof), "not in the log at the place"),
        "a line of junk": (lambda proof: proof.replace("index 3\n", "index 3\njunk\n"), "is damaged"),
        "no head": (lambda proof: proof.partition("\n\n")[0], "is damaged"),
    }


@pytest.mark.parametrize("crypto", ["its own", "none"])
def test_a_tampered_proof_of_its_place_fails(page: Page, text: str, tmp_path: Path, crypto: str) -> None:
    if crypto == "none":
        page.add_init_script(WITHOUT_CRYPTO)
    for change, reason in other_proofs(text).values():
        show(page, tmp_path, changed(text, lambda entries: None, change))
        expect(page.locator("#verdict-title")).to_have_text(FAILS)
        expect(page.locator("#verdict-text")).to_contain_text(reason)
    show(page, tmp_path, changed(text, lambda entries: None, lambda proof: None))
    expect(page.locator("#verdict-title")).to_have_text("Genuine and unchanged")
    expect(page.locator("#checks")).to_contain_text("It fixes the entry before it")


def test_a_stranger_who_signs_all_of_it_is_found_by_the_key_alone(page: Page, text: str, tmp_path: Path) -> None:
    def all_forged(entries: list[str]) -> None:
        del entries[:-1]
        entries[-1] = re.sub(r'"receipt":"[0-9a-f]+"', '"receipt":null', entries[-1])
        forged(entries)

    show(page, tmp_path, changed(text, all_forged, lambda proof: None))
    expect(page.locator("#what")).to_contain_text("999 records")
    expect(page.locator("#key-title")).to_contain_text("whose key is it?")


def test_a_damaged_file_never_looks_checked(page: Page, text: str, tmp_path: Path) -> None:
    show(page, tmp_path, text[: len(text) // 2])
    expect(page.locator("#verdict-title")).to_have_text("Not checked")
    expect(page.locator("#content")).to_be_hidden()
    show(page, tmp_path, text.replace('id="signed">{', 'id="signed">{{'))
    expect(page.locator("#verdict-title")).to_have_text(FAILS)
    expect(page.locator("#verdict-text")).to_contain_text("The file is damaged")


def test_a_browser_without_cryptography_checks_with_the_pages_own(page: Page, text: str, tmp_path: Path) -> None:
    page.add_init_script(WITHOUT_CRYPTO)
    show(page, tmp_path, text)
    expect(page.locator("#verdict-title")).to_have_text("Genuine and unchanged")
    expect(page.locator("#checks")).to_contain_text("cryptography that is part of this page")
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    order = 2**252 + 27742317777372353535851937790883648493
    for length in (0, 1, 111, 112, 127, 128, 239, 1000):
        message = bytes(range(256)) * 4
        message = message[:length]
        good = key.sign(message)
        shifted = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
        cases = [
            (public, message, good, True),
            (public, message + b"x", good, False),
            (public, message, shifted, False),
        ]
        cases += [(public, message, good[:-1] + bytes([good[-1] ^ 1]), False), (good[:32], message, good, False)]
        for case_key, said, signature, wanted in cases:
            found = page.evaluate(
                "([key, said, signature]) => ed25519Verify(fromHex(key), fromHex(said), fromHex(signature))",
                [case_key.hex(), said.hex(), signature.hex()],
            )
            assert found is wanted
    for bits in (256, 512):
        ours = page.evaluate("([bits, said]) => toHex(sha2(bits, fromHex(said)))", [bits, (b"abc" * 100).hex()])
        assert ours == hashlib.new(f"sha{bits}", b"abc" * 100).hexdigest()


def test_by_keyboard_alone(page: Page, text: str, tmp_path: Path) -> None:
    show(page, tmp_path, text)
    expect(page.locator("#content")).to_be_visible()
    reached: list[str] = []
    while "save" not in reached and len(reached) < 20:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert reached[0] == "Skip to content"
    wanted = ["known", "Compare", "receipt", "subjects", "ids", "Check whether it is mine", "save"]
    assert [name for name in reached if name in wanted] == wanted
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#all")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read_in_light_and_dark(
    browser: Browser, text: str, tmp_path: Path, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    for kind, told in (("good", text), ("bad", changed(text, TAMPERED["a count"][0]))):
        show(page, tmp_path, told)
        expect(page.locator(f".verdict.{kind}")).to_be_visible()
        page.locator("details").evaluate("node => { node.open = true }")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        for place in ("body", "#verdict-title", ".soft"):
            ink = page.locator(place).first.evaluate("node => getComputedStyle(node).color")
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert contrast(ink, ground) > (7 if place == "body" else 4.5)
    context.close()
