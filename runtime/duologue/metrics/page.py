"""The frame that every HTML page of ours shares: one file with its style, which follows light and dark."""

from __future__ import annotations

from html import escape
from importlib import resources


def html_page(title: str, main: str, *, style: str = "", scripts: str = "") -> str:
    """Return a whole page.

    Args:
        title: Plain text.
        main: HTML of what is to be read.
        style: CSS beside the shared style.
        scripts: HTML behind the text.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<style>\n{read_asset('page.css')}{style}</style>\n</head>\n<body>\n<main>\n{main}</main>\n"
        f"{scripts}</body>\n</html>\n"
    )


def html_section(name: str, heading: str, content: str) -> str:
    """Return a part of a page with HTML `content` under a plain heading; nothing if there is no content."""
    return f'<section id="{name}">\n<h2>{escape(heading)}</h2>\n{content}\n</section>\n' if content else ""


def read_asset(name: str) -> str:
    """Return a file that lies beside this one."""
    return resources.files("duologue.metrics").joinpath(name).read_text(encoding="utf-8")
