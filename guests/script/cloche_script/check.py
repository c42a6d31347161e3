"""Whether a text is a script."""

import warnings


def problem(code: str, name: str) -> tuple[str, int, int, str] | None:
    """Message, line, column and text of what keeps `code` from being compiled; None when nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, name.replace("\0", "\ufffd"), "exec", dont_inherit=True)
    except SyntaxError as error:
        text = (error.text or "").rstrip("\n")
        return _shown(error.msg), max(error.lineno or 0, 0), max(error.offset or 0, 0), _shown(text)
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return _shown(str(error) or type(error).__name__), 0, 0, ""
    return None


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
