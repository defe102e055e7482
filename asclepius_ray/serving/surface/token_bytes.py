"""A token id → the bytes that it stands for, also where it holds only a part of a character.

Read from the vocabulary: a byte-level one writes each byte as one printable character, a
SentencePiece one writes a space as U+2581 and a lone byte as <0x..>.
"""

import json
import re
from functools import lru_cache
from typing import Any

_LONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SENTENCE_PIECE_SPACE = "\u2581"
CACHED_TOKENS = 1 << 16


class TokenBytes:
    """The bytes of each token of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = {id_: str(token) for id_, token in tokenizer.added_tokens_decoder.items()}
        self._byte_of = _bytes_of_characters() if _is_byte_level(tokenizer) else None
        self.of = lru_cache(CACHED_TOKENS)(self._of)

    def _of(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return b""
        if self._byte_of is not None:
            return b"".join(self._byte_of.get(character, character.encode()) for character in token)
        if lone_byte := _LONE_BYTE.fullmatch(token):
            return bytes([int(lone_byte[1], 16)])
        return str(token).replace(_SENTENCE_PIECE_SPACE, " ").encode()


def shown_token(token: bytes) -> str:
    """The token's text; of a part of a character its bytes, in the form that OpenAI gives them."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return False
    # The state of the decoder alone: that of the whole tokenizer holds its vocabulary.
    decoder = json.loads(backend.decoder.__getstate__())
    kinds = [decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", ()))]
    return "ByteLevel" in kinds


def _bytes_of_characters() -> dict[str, bytes]:
    """GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on in their order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): bytes([byte]) for byte in printable}
    return table | {chr(0x100 + place): bytes([byte]) for place, byte in enumerate(others)}
