"""SVG elements as text."""

from __future__ import annotations

from html import escape


def element(name: str, content: str = "", **attributes: object) -> str:
    """One element. `_` in an attribute's name stands for `-`, a `_` at its end is dropped (`class_`)."""
    pairs = (f'{key.rstrip("_").replace("_", "-")}="{escape(shown(value))}"' for key, value in attributes.items())
    opening = " ".join([name, *pairs])
    return f"<{opening}>{content}</{name}>" if content else f"<{opening}/>"


def shown(value: object) -> str:
    """Numbers with two decimals at most: a picture has no more than that."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(x: float, y: float, words: str, class_: str = "label", anchor: str = "start") -> str:
    return element("text", escape(words), x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def picture(width: int, height: int, content: str, title: str) -> str:
    """A whole picture, as wide as the page lets it be; `title` is what a screen reader says."""
    head = element("title", escape(title))
    return element("svg", head + content, viewBox=f"0 0 {width} {height}", role="img", style=f"max-width:{width}px")
