"""Take the screenshot of the app in the guide.

    python examples/app_figure.py docs/figures/app.png

Needs chromium on the PATH.
"""

import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def take_screenshot(page: Page, address: str) -> bytes:
    """Return the page with a result for the example `tripod`, as PNG."""
    page.goto(address)
    page.get_by_role("button", name="tripod", exact=True).click()
    page.locator("#target label").first.wait_for()
    page.locator("#explain").click()
    page.locator("#history li").wait_for(timeout=600_000)
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(3000)  # until the frame has reported its height
    return page.screenshot()


def main(out: Path) -> None:
    """Start the app, take the screenshot and write it."""
    command = [sys.executable, "-m", "extremal", "app", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[1]
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            screenshot = take_screenshot(browser.new_page(viewport={"width": 1360, "height": 1000}), address)
            browser.close()
        finally:
            server.send_signal(signal.SIGTERM)
    with Image.open(io.BytesIO(screenshot)) as picture:
        picture.convert("RGB").quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
