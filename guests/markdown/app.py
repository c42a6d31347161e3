"""Markdown to HTML or to plain text, with markdown-it-py. Raw HTML in the document is shown, not passed through."""

from markdown_it import MarkdownIt
from wit_world import exports
from wit_world.exports import text_transform as wit

from cloche_guest import Err, export

_PARSER = MarkdownIt("commonmark", {"html": False}).enable("table").enable("strikethrough")
# Everything that the library loads late is loaded here: a call can import nothing.
_PARSER.render("# a\n\n| b |\n| - |\n| `c` |\n\n```text\nd\n```\n\n~~e~~ <f@g.hi> &amp; ![j](k) [l](https://m.n)\n")


@export
class TextTransform(exports.TextTransform):
    """The extension point `cloche:example/text-transform`."""

    def transform(self, input: wit.Document, output: wit.Format) -> wit.Transformed:  # noqa: A002 - the WIT's name
        """Render `input`, which must be Markdown or plain text."""
        if not isinstance(input.format, wit.Format_Markdown | wit.Format_Plain):
            raise Err(wit.Error_UnsupportedFormat(input.format))
        markdown = isinstance(input.format, wit.Format_Markdown)
        if isinstance(output, wit.Format_Html):
            text = _PARSER.render(input.text) if markdown else f"<pre>{_escaped(input.text)}</pre>\n"
        elif isinstance(output, wit.Format_Plain):
            text = _plain(input.text) if markdown else input.text
        else:
            raise Err(wit.Error_UnsupportedFormat(output))
        return wit.Transformed(wit.Document(output, text), _warnings(input.text) if markdown else [])


def _plain(markdown: str) -> str:
    lines = []
    for token in _PARSER.parse(markdown):
        if token.type == "inline":
            lines.append("".join(_words(child) for child in token.children or ()))
        elif token.type in ("fence", "code_block"):
            lines.append(token.content.rstrip("\n"))
    return "\n".join(lines) + "\n" if lines else ""


def _words(token) -> str:
    return "\n" if token.type in ("softbreak", "hardbreak") else token.content


def _warnings(markdown: str) -> list[str]:
    raw = any(child.content.startswith("<") and child.content.endswith(">") for child in _html(markdown))
    return ["raw HTML is shown as text"] if raw else []


def _html(markdown: str):
    parser = MarkdownIt("commonmark", {"html": True})
    for token in parser.parse(markdown):
        if token.type == "html_block":
            token.content = token.content.strip()
            yield token
        yield from (child for child in token.children or () if child.type == "html_inline")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
