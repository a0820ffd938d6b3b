"""The text of an HTML page: what a reader sees, in lines, without scripts, styles and markup."""

from __future__ import annotations

import html.parser
import re

_HIDDEN = frozenset(('head', 'noscript', 'script', 'style', 'svg', 'template', 'textarea', 'iframe', 'object'))
_INLINE = frozenset(
  re.findall(
    r'\w+',
    'a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark q s samp small span strike '
    'strong sub sup time tt u var wbr',
  )
)
_SPACES = re.compile(r'[^\S\n]+')
_AROUND_LINES = re.compile(r' *\n[\s]*')


def visible_text(page: str) -> str:
  """The text of `page`, a line for each block that has any. Raises nothing, whatever the page."""
  reader = _Reader()
  reader.feed(page)
  reader.close()
  text = _SPACES.sub(' ', ''.join(reader.pieces))
  return _AROUND_LINES.sub('\n', text).strip()


class _Reader(html.parser.HTMLParser):
  """Collects the pieces of text between the tags."""

  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.pieces: list[str] = []
    self._hidden_by: str | None = None
    self._depth = 0  # of elements of that name, one in another

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    """A block begins a line; a hidden element hides what is in it."""
    del attrs
    if self._hidden_by == 'head' and tag == 'body':  # </head> may be left out
      self._hidden_by = None
    if self._hidden_by is None and tag in _HIDDEN:
      self._hidden_by, self._depth = tag, 0
    self._depth += tag == self._hidden_by
    self._break_line(tag)

  def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    """`<br/>`."""
    del attrs
    self._break_line(tag)

  def parse_marked_section(self, i: int, report: int = 1) -> int:
    """`<![...>` is a comment to browsers; `html.parser` raises AssertionError for names that it does not know."""
    del report
    end = self.rawdata.find('>', i)
    return end + 1 if end >= 0 else -1

  def handle_endtag(self, tag: str) -> None:
    """The end of a block ends a line."""
    if tag == self._hidden_by:
      self._depth -= 1
      if self._depth == 0:
        self._hidden_by = None
    self._break_line(tag)

  def handle_data(self, data: str) -> None:
    """Line ends in the source are spaces."""
    if self._hidden_by is None:
      self.pieces.append(data.replace('\n', ' '))

  def _break_line(self, tag: str) -> None:
    if self._hidden_by is None and tag not in _INLINE:
      self.pieces.append('\n')
