"""The page: sections of words, pictures and tables in one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2430; --soft: #5b6675; --paper: #fdfdfc; --line: #e2e6ea; --box: #f4f6f8;
  --rnn: #6b7280; --gru: #c2570c; --lstm: #8b3fd1; --bias: #1d63d8; --chrono: #0b8457;
  --kept: #1d63d8; --written: #e0892b; --gate: #0b8457; --held: #1d63d8; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e7ebf0; --soft: #a3aebb; --paper: #14181d; --line: #2c343d; --box: #1d232a;
  --rnn: #a1aab6; --gru: #f29b5c; --lstm: #c493f5; --bias: #74a7ff; --chrono: #4fd09b;
  --kept: #74a7ff; --written: #f0b069; --gate: #4fd09b; --held: #74a7ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.6 system-ui, sans-serif; }
main { max-width: 760px; margin: 0 auto; padding: 40px 20px 80px; }
h1 { font-size: 2em; line-height: 1.2; margin: 0 0 .4em; } h2 { margin: 2.4em 0 .4em; line-height: 1.3; }
p { margin: .7em 0; } .soft, figcaption { color: var(--soft); font-size: .88em; }
figure { margin: 1.4em 0; } figcaption { margin-top: .4em; }
svg { width: 100%; height: auto; display: block; overflow: visible; }
dl { background: var(--box); border-radius: 8px; padding: 14px 20px; } dt { font-weight: 600; } dd { margin: 0 0 .5em; }
.found { border-left: 4px solid var(--bias); background: var(--box); padding: 10px 16px; border-radius: 0 8px 8px 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9em; width: 100%; }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
code { background: var(--box); padding: 1px 5px; border-radius: 4px; font-size: .9em; }
.label, .tick, .title { font: 13px system-ui, sans-serif; fill: var(--soft); }
.tick { font-size: 12px; } .title { fill: var(--ink); font-weight: 600; }
.held-text { font: 600 12px system-ui, sans-serif; fill: var(--paper); }
.grid { stroke: var(--line); stroke-width: 1; } .mark { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
.line { fill: none; stroke: var(--c); stroke-width: 2; } .band { fill: var(--c); opacity: .16; }
.dot { fill: var(--c); stroke: var(--paper); stroke-width: .8; } .dot.faint { opacity: .65; }
.dot.open { fill: var(--paper); stroke: var(--c); stroke-width: 2; } .fill { fill: var(--c); }
.never { --c: var(--soft); stroke-width: 1; stroke-dasharray: 3 4; }
.ring, .unit { fill: none; stroke: var(--soft); stroke-width: 1.5; }
.rnn { --c: var(--rnn); } .gru { --c: var(--gru); } .lstm { --c: var(--lstm); } .bias { --c: var(--bias); }
.chrono { --c: var(--chrono); } .kept { --c: var(--kept); } .written { --c: var(--written); }
.gate { --c: var(--gate); } .held { --c: var(--held); }
"""


@dataclass(frozen=True)
class Section:
    """A heading, and below it HTML."""

    heading: str
    parts: tuple[str, ...]


def paragraph(words: str) -> str:
    """Words; `*so*` is emphasised and `` `so` `` is code."""
    return f"<p>{inline(words)}</p>"


def inline(words: str) -> str:
    for mark, name in (("`", "code"), ("*", "em")):
        pieces = words.split(mark) if mark != "`" else escape(words, quote=False).split(mark)
        words = "".join(f"<{name}>{piece}</{name}>" if index % 2 else piece for index, piece in enumerate(pieces))
    return words


def figure(*pictures: str, caption: str) -> str:
    return f"<figure>{''.join(pictures)}<figcaption>{inline(caption)}</figcaption></figure>"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table that scrolls where it is too wide."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def terms(pairs: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{inline(said)}</dd>" for term, said in pairs.items()) + "</dl>"


def page(title: str, lead: str, sections: list[Section]) -> str:
    body = "".join(f"<h2>{escape(one.heading)}</h2>{''.join(one.parts)}" for one in sections)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    top = f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head>'
    return f"{top}<body><main><h1>{escape(title)}</h1>{lead}{body}</main></body></html>\n"
