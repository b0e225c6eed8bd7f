"""Very long texts, of which a model reads the beginning alone."""

_LONGEST_WORD = 64
# Words of nothing but characters that a tokeniser leaves out have no token.
_SPARE = 2


def cut_text(text: str, tokens: int) -> str:
    """Return the beginning of a text that certainly has so many tokens; the whole text if that is not sure.

    A tokeniser reads all of a text before it cuts it, and takes a hundred times the text's size of memory.
    Words between white space have a token each, and are not broken here.

    Args:
        text: The text.
        tokens: The most tokens that are read of it.
    """
    size = _LONGEST_WORD * _SPARE * tokens
    if len(text) <= size:
        return text
    words = text[:size].rsplit(None, 1)[0]
    return words if len(words.split()) >= _SPARE * tokens else text
