"""A real headless Chromium, driven over its own debugging pipe (DevTools protocol): no driver and no package needed.

The pipe is what Chromium offers to those who start it: JSON with a zero byte after each message, asked on descriptor 3
and answered on 4. There is no port that another test could take, and no version to keep in step with the browser's.
"""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
ANSWER_S = 30.0
WAIT_S = 30.0
OPTIONS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
    "--disable-dev-shm-usage",
)


class JavaScriptError(AssertionError):
    """What a page's own code threw."""


def apart(descriptor: int) -> int:
    """The same file under a number that is neither 3 nor 4, where Chromium's ends of the pipes go."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


class Chromium:
    """One browser process; each page has a profile of its own."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM
        folder.mkdir(parents=True, exist_ok=True)
        asked, self.ask = map(apart, os.pipe())
        self.answers, answer = map(apart, os.pipe())
        log = str(folder / "chromium.log")
        actions = [
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, asked, 3),
            (os.POSIX_SPAWN_DUP2, answer, 4),
        ]
        sandbox = () if os.getuid() else ("--no-sandbox",)  # root has none
        command = [PROGRAM, *OPTIONS, *sandbox, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self.pid = os.posix_spawn(PROGRAM, command, os.environ, file_actions=actions, setpgroup=0)
        os.close(asked)
        os.close(answer)
        self.numbers, self.rest = itertools.count(1), b""
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Ask, and wait for the answer. Events that come in between are kept."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self.ask, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != number:
            if "method" in answer:
                self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            assert select.select([self.answers], [], [], ANSWER_S)[0], f"Chromium said nothing for {ANSWER_S} s"
            more = os.read(self.answers, 1 << 20)
            assert more, "Chromium has ended"
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        read: dict[str, Any] = json.loads(message)
        return read

    @contextmanager
    def page(self, url: str, width: int = 1280, height: int = 900) -> "Iterator[Page]":
        """A page in a fresh profile: no history, no storage, no cache."""
        profile = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=profile)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, profile)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        self.send(
            "Browser.grantPermissions",
            browserContextId=profile,
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        )
        page.send("Emulation.setFocusEmulationEnabled", enabled=True)
        page.resize(width, height).open(url)
        yield page
        self.send("Target.disposeBrowserContext", browserContextId=profile)

    def close(self) -> None:
        os.close(self.ask)  # it ends when nobody can ask any more
        os.close(self.answers)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Page:
    """One tab: what a person can see and do in it."""

    def __init__(self, chromium: Chromium, session: str, profile: str) -> None:
        self.chromium, self.session, self.profile = chromium, session, profile

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.chromium.send(method, self.session, **parameters)

    def resize(self, width: int, height: int) -> Self:
        mobile = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)
        return self

    def open(self, url: str) -> None:
        self.send("Page.navigate", url="about:blank")  # or one that differs in its fragment would not be loaded
        self.send("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def prefer(self, **features: str) -> None:
        """What CSS asks of the system, such as ``prefers_color_scheme="dark"``."""
        told = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.send("Emulation.setEmulatedMedia", features=told)

    def run(self, code: str) -> Any:
        """The value of an expression in the page, awaited. Raises JavaScriptError."""
        answer = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"]
            raise JavaScriptError(thrown.get("exception", {}).get("description", thrown["text"]))
        return answer["result"].get("value")

    def until(self, code: str, limit_s: float = WAIT_S) -> Any:
        """The value of an expression once it is true."""
        give_up_s = time.monotonic() + limit_s
        while not (value := self.run(code)):
            assert time.monotonic() < give_up_s, f"not within {limit_s} s: {code}"
            time.sleep(0.02)
        return value

    def see(self, selector: str, count: int = 1) -> None:
        """Wait until so many such elements can be seen."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        self.until(f"{found}.filter(element => element.checkVisibility()).length === {count}")

    def text(self, selector: str) -> str:
        self.see(selector)
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the element, once it is there and can be hit."""
        place = self.until(
            f"""(async () => {{
              const element = document.querySelector({json.dumps(selector)});
              if (!element || element.disabled || !element.checkVisibility()) return null;
              element.scrollIntoView({{ block: "center", behavior: "instant" }});
              const place = () => {{
                const box = element.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
              }};
              const before = place();
              for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
              const [x, y] = place();
              if (x !== before[0] || y !== before[1]) return null; // the page still moves
              const hit = document.elementFromPoint(x, y);
              return element.contains(hit) || hit?.contains(element) ? [x, y] : null;
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, *place)

    def mouse(self, kind: str, x: float, y: float, buttons: int = 1) -> None:
        pressed = {"button": "left", "buttons": buttons, "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def write(self, selector: str, text: str) -> None:
        """In place of what stands there."""
        self.see(selector)
        self.run(f"(e => (e.focus(), e.select()))(document.querySelector({json.dumps(selector)}))")
        self.send("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """One of the options of a list."""
        self.see(selector)
        chosen = (
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('change', {{ bubbles: true }})); }})"
        )
        self.run(f"{chosen}(document.querySelector({json.dumps(selector)}))")

    def press(self, key: str, **more: Any) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def heard(self, method: str) -> list[dict[str, Any]]:
        """What it told of itself so far, such as each ``Network.requestWillBeSent``."""
        self.run("0")  # whatever comes before this answer is there then
        return [
            event["params"]
            for event in self.chromium.events
            if event["method"] == method and event.get("sessionId") == self.session
        ]

    def complaints(self) -> list[str]:
        """Uncaught errors, and what the browser itself has put on the console as one: broken policies, failed loads."""
        thrown = [told["exceptionDetails"]["text"] for told in self.heard("Runtime.exceptionThrown")]
        entries = [told["entry"] for told in self.heard("Log.entryAdded")]
        return thrown + [f"{entry['text']} {entry.get('url', '')}" for entry in entries if entry["level"] == "error"]
