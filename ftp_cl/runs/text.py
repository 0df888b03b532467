"""Text from names and files as it may be shown: on a terminal, in Markdown, LaTeX or a spreadsheet."""

_JOINERS = "\u200c\u200d"  # Persian words and many emoji need them; they steer nothing

# What begins a formula, in spreadsheets that read the full-width forms, too.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    # In braces, because behind the \\ of the row before, they would be its star or its optional argument.
    **{character: f"{{{character}}}" for character in "[]*"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",  # noqa: RUF001
    "…": r"\dots{}",
    "†": r"\textdagger{}",
}


def printable(text: object) -> str:
    r"""One line of text that steers no terminal and turns no direction of writing.

    White space becomes a space; every other character that cannot be printed becomes its escape: `\x1b`, `\u202e`, or
    `\xff` for a byte of a file name that is not UTF-8. So the result can always be encoded as UTF-8.

    Args:
        text: a name, a path, an error; anything that `str` takes.
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if character.isspace():
        return " "
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte that is no text
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def markdown_text(text: str) -> str:
    """Printable text so that Markdown shows it as it is."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_[]|#~$" else character for character in escaped)


def latex_text(text: str) -> str:
    """Printable text so that LaTeX shows it as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


def csv_cell(text: str) -> str:
    """Printable text so that a spreadsheet shows it and does not compute it: behind an apostrophe where need be."""
    return f"'{text}" if text.startswith(_FORMULA) else text
