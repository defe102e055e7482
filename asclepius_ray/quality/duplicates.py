"""Notes that say nearly the same as an earlier one: MinHash over runs of five words, by datasketch."""

from datasketch import MinHash, MinHashLSH

SHINGLE_WORDS = 5
NUM_PERMUTATIONS = 64
MOST_INDEXED = 0.9
"""The index finds what is at least so similar; a higher demand is made of what it finds."""


class EarlierNotes:
    """The notes that were kept so far; holds hashes, no text."""

    def __init__(self, min_similarity: float) -> None:
        """`min_similarity` is the Jaccard similarity of the sets of word runs, estimated; 0 < it <= 1."""
        self._min_similarity = min_similarity
        self._index = MinHashLSH(threshold=min(min_similarity, MOST_INDEXED), num_perm=NUM_PERMUTATIONS)
        self._hashes: dict[int, MinHash] = {}

    def add_if_new(self, note: str) -> bool:
        """Whether no earlier note is so similar; only then it is remembered."""
        minhash = _hash(note)
        near: list[int] = self._index.query(minhash)
        if any(minhash.jaccard(self._hashes[key]) >= self._min_similarity for key in near):
            return False
        key = len(self._hashes)
        self._index.insert(key, minhash, check_duplication=False)
        self._hashes[key] = minhash
        return True


def _hash(note: str) -> MinHash:
    words = note.lower().split()
    minhash = MinHash(num_perm=NUM_PERMUTATIONS, seed=1)
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    minhash.update_batch({" ".join(words[start : start + SHINGLE_WORDS]).encode() for start in range(last)})
    return minhash
