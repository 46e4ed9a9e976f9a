"""The built site in a browser. Not in the normal suite: `make docs-test` runs it."""

import functools
import http.server
import shutil
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urldefrag
from urllib.request import urlopen

import pytest

pytestmark = pytest.mark.browser

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = sorted(
    page
    for path in SITE.rglob("*.html")
    if not (page := path.relative_to(SITE).as_posix()).startswith("_static/")
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """Where the site is served while the tests run."""
    if not PAGES:
        pytest.fail(f"The site is not built: run `make docs`. Got nothing in {SITE}.")
    handler = functools.partial(_Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.fail(
            "This test needs Chromium and its driver: apt-get install chromium chromium-driver."
        )
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(autouse=True)
def _on_a_desk(browser):
    size(browser, DESKTOP)


def size(browser, screen):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def wait_for(browser, script):
    """What `script` returns as soon as that is something."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 10).until(lambda driver: driver.execute_script(script))


def heading(browser) -> str:
    return wait_for(browser, "return document.querySelector('h1')?.innerText")


@functools.cache
def text_of(url: str) -> str | None:
    """What is served there; None for an error."""
    try:
        with urlopen(url) as answer:  # noqa: S310 (localhost)
            return answer.read().decode(errors="replace")
    except HTTPError:
        return None


def is_there(target: str) -> bool:
    """Whether there is such a file, and in a page the place that is meant."""
    url, place = urldefrag(target)
    text = text_of(url)
    if not text:
        return False
    # A place that starts so is a text, which the browser looks for.
    if not place or place.startswith(":~:text=") or not url.endswith(".html"):
        return True
    return f'id="{unquote(place)}"' in text


def test_start_page_shows_its_pictures(browser, address):
    browser.get(f"{address}/index.html")
    assert "skmoe" in browser.title
    widths = wait_for(
        browser,
        "const all = [...document.querySelectorAll('article img')];"
        "return all.every(image => image.complete) && all.map(image => image.naturalWidth)",
    )
    assert len(widths) >= 3
    assert min(widths) > 0


def test_navigation_leads_to_every_part_of_the_site(browser, address):
    browser.get(f"{address}/index.html")
    links = "[...document.querySelectorAll('.bd-header .navbar-nav a.nav-link')]"
    n_links = browser.execute_script(f"return {links}.length")
    assert n_links >= 6
    seen = set()
    for i in range(n_links):
        browser.get(f"{address}/index.html")
        before = browser.current_url
        browser.execute_script(f"{links}[{i}].click()")
        wait_for(browser, f"return location.href != {before!r}")
        seen.add(heading(browser))
    assert len(seen) == n_links
    assert {"User guide", "Examples", "API reference"} <= {
        title.strip("#\n ") for title in seen
    }


def test_search_finds_a_page_and_leads_to_it(browser, address):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{address}/index.html")
    browser.find_element(By.CSS_SELECTOR, ".search-button__button, .search-button").click()
    field = browser.find_element(By.CSS_SELECTOR, "dialog input[type=search]")
    field.send_keys("expert_choice", Keys.ENTER)
    first = wait_for(browser, "return document.querySelector('#search-results li a')")
    first.click()
    wait_for(browser, "return !location.pathname.includes('search')")
    text = browser.execute_script("return document.querySelector('article').textContent")
    assert "expert_choice" in text


def test_no_link_or_picture_is_broken(browser, address):
    broken = []
    for page in PAGES:
        browser.get(f"{address}/{page}")
        targets = browser.execute_script(
            "return [...[...document.links].map(link => link.href),"
            "        ...[...document.images].map(image => image.src)]"
        )
        for target in {target for target in targets if target.startswith(address)}:
            if not is_there(target):
                broken.append((page, target))
    assert broken == []


def test_nothing_comes_from_elsewhere_and_no_script_fails(browser, address):
    for page in ("index.html", "guide/theory.html", "gallery/index.html", "api/index.html"):
        browser.get(f"{address}/{page}")
        sources = browser.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert [source for source in sources if not source.startswith(address)] == []
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


def test_formulas_are_typeset(browser, address):
    browser.get(f"{address}/guide/theory.html")
    n_formulas = browser.execute_script("return document.querySelectorAll('.math').length")
    assert n_formulas > 10
    typeset = "document.querySelectorAll('.math mjx-container').length"
    assert wait_for(browser, f"return {typeset} >= {n_formulas} && {typeset}") >= n_formulas


# Text that ends beyond the screen, but for what stands in something that scrolls.
CUT_OFF = """
return [...document.querySelectorAll('article :is(h1, h2, h3, p, li, dt, dd, td, pre, img)')]
  .filter(it => it.checkVisibility() && it.getBoundingClientRect().right > innerWidth + 1)
  .filter(it => {
    while ((it = it.parentElement) && !it.matches('main'))
      if (['auto', 'scroll'].includes(getComputedStyle(it).overflowX)) return false;
    return true;
  })
  .map(it => it.textContent.trim().slice(0, 40))
"""


def test_pages_fit_a_phone(browser, address):
    size(browser, PHONE)
    wide, cut_off = {}, {}
    for page in PAGES:
        browser.get(f"{address}/{page}")
        width = browser.execute_script("return document.documentElement.scrollWidth")
        if width > PHONE["width"] + 1:
            wide[page] = width
        if texts := browser.execute_script(CUT_OFF):
            cut_off[page] = texts
    assert wide == {}
    assert cut_off == {}
