"""The page, in a real browser: sorting, details, plots, a phone's width, dark and light."""

import re
import shutil

import pytest
from made_table import SPECIAL, made_table

from peftbench.tables.export.html import to_html

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if BROWSER is None or DRIVER is None:
        pytest.skip("no browser: Debian's packages chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, tmp_path):
    """A function that opens the page at a width and a colour scheme."""
    path = tmp_path / "table.html"
    path.write_text(to_html(made_table()), encoding="utf-8")

    def show(width: int = 1280, scheme: str = "light"):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        browser.get(path.as_uri())
        return browser

    yield show
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def texts(browser, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


def click(browser, selector: str, number: int = 0) -> None:
    browser.find_elements("css selector", selector)[number].click()


def test_without_javascript_the_table_is_all_there():
    page = re.sub(r"<script.*?</script>", "", to_html(made_table()), flags=re.DOTALL)
    for part in ("86.0 ± 1.0", "<strong>−5.4 ± 0.6</strong>", "the lab 77.5: does not hold", "1 failed", "3 missing"):
        assert part in page
    for claim in made_table().claims:
        assert claim.verdict in page
    assert "Adapter &lt;m = 64&gt;" in page and SPECIAL not in page
    assert "http://" not in to_html(made_table()).replace("http://www.w3.org/2000/svg", "") and "https://" not in page


def test_headings_sort_both_ways_and_what_is_missing_stays_last(page):
    browser = page()
    for _ in range(2):
        click(browser, "thead th button", 1)
    column = [text.split("\n")[0] for text in texts(browser, "tbody tr[data-row] td:nth-child(2)")]
    figures = [float(text.split(" ")[0]) for text in column if text != "–"]
    assert figures == sorted(figures, reverse=True) and len(figures) >= 4
    assert column[len(figures) :] == ["–"] * (len(column) - len(figures))
    (sort,) = [h.get_attribute("aria-sort") for h in browser.find_elements("css selector", "thead th")][1:2]
    assert sort == "descending"
    click(browser, "thead th button", 1)
    column = [text.split("\n")[0] for text in texts(browser, "tbody tr[data-row] td:nth-child(2)")]
    assert [float(text.split(" ")[0]) for text in column if text != "–"] == sorted(figures)
    click(browser, "thead th button", 0)
    labels = texts(browser, "tbody tr[data-row] .lead")
    assert labels == sorted(labels, key=str.lower)


def test_every_row_and_point_leads_to_its_runs(page):
    browser = page()
    row = next(i for i, row in enumerate(made_table().rows) if row.label == "LoRA, r = 8")
    click(browser, f"tbody tr[data-row='{row}'] td")
    shown = browser.find_element("css selector", "dialog[open]").text
    assert "LoRA, r = 8" in shown and "seed 2: failed" in shown and "loss is NaN" in shown
    assert "peftbench train experiment=lab task=mrpc method=lora seed=0" in shown
    click(browser, "dialog summary")
    assert 'method.name: "lora"' in browser.find_element("css selector", "dialog").text
    click(browser, "dialog header button")
    assert not browser.find_elements("css selector", "dialog[open]")
    (point,) = [
        element
        for element in browser.find_elements("css selector", "figure:first-child .point")
        if element.get_attribute("aria-label").startswith("Full fine-tuning")
    ]
    point.send_keys("\n")
    assert "Full fine-tuning" in browser.find_element("css selector", "dialog[open]").text


def test_plots_show_every_row_that_has_the_figures(page):
    browser = page()
    figures = browser.find_elements("css selector", "figure")
    assert [figure.find_element("css selector", "figcaption").text for figure in figures] == [
        "Accuracy, % with intervals against Parameter share, %",
        "Accuracy, % with intervals against Latency, ×",
        "Accuracy, % on validation while training",
    ]
    finished = [row for row in made_table().rows if row.cells.get("accuracy") and row.cells["accuracy"].value]
    assert len(figures[0].find_elements("css selector", ".point")) == len(finished)
    assert len(figures[2].find_elements("css selector", ".curve")) == len(finished)
    assert len(figures[0].find_elements("css selector", ".front")) == 1
    assert len(figures[0].find_elements("css selector", ".ceiling")) == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_never_scrolls_sideways(page, width):
    browser = page(width)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    if width == 390:
        assert browser.execute_script(
            "const s = document.querySelector('.scroll'); return s.scrollWidth > s.clientWidth"
        )


def test_dark_and_light(page):
    colours = [
        page(scheme=s).execute_script("return getComputedStyle(document.body).backgroundColor")
        for s in ("light", "dark")
    ]
    assert colours == ["rgb(255, 255, 255)", "rgb(22, 24, 28)"]
