"""log4j2's XML as a tree. Entities are refused, so that no document grows when it is read or asks for another."""

from __future__ import annotations

from xml.parsers import expat

from modelserver.logconfig.elements import DEEPEST, Element, Malformed


def read_xml(text: bytes) -> Element:
    """The root element. Raises Malformed."""
    builder = _Builder()
    try:
        builder.parser.Parse(text, True)
    except expat.ExpatError as error:
        raise Malformed(f"line {error.lineno}: {expat.ErrorString(error.code)}") from None
    except (LookupError, ValueError) as error:  # an encoding that Python does not know
        raise Malformed(str(error)) from None
    return builder.root


class _Builder:
    """Follows the parser's events. Both forms of elements are one: `<Appender type="Console">` is `<Console>`."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._begin
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._refuse
        self._open = [Element("", "")]

    @property
    def root(self) -> Element:
        return self._open[0].children[0]

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) == 1 and name.startswith("log4j:"):
            raise Malformed("it is written for log4j 1.x, which is not understood: log4j2 has other elements")
        if len(self._open) > DEEPEST:
            raise Malformed(f"line {self.parser.CurrentLineNumber}: elements are nested more than {DEEPEST} deep")
        known = {key.rpartition(":")[2].lower(): value for key, value in attributes.items()}
        kind = name.rpartition(":")[2].lower()
        if kind in ("appender", "layout", "filter", "policy", "strategy") and "type" in known:
            kind = known.pop("type").lower()
        element = Element(kind, f"line {self.parser.CurrentLineNumber}", known)
        self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, name: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        self._open[-1].text += text

    def _refuse(self, name: str, *_: object) -> None:
        raise Malformed(f"line {self.parser.CurrentLineNumber}: the entity {name} is declared; entities are not read")
