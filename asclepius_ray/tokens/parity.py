"""One hash over what tokenizer, chat template and instruction prompt together make of a fixed example.

Hashes of files tell that nobody changed them; this one tells that the libraries read them as they did
when the model was trained.
"""

import hashlib

from transformers import PreTrainedTokenizerBase

from asclepius_ray.tokens.rendering import end_token_id, prompt_ids

# Numbers, units, accents and line ends are where tokenizers differ.
_NOTE = (
    "Invented example.\nA 47-year-old woman, 1.62 m, naïve to opioids, Na⁺ 138 mmol/L, CRP 0.7 mg/dL.\n\n"
    "- ibuprofen 400 mg b.i.d.\n- T 37.9 °C (10:30), SpO₂ 97 %"
)
_QUESTION = "Which medication, and at which dose?"


def token_ids_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """The hash of the ids of an invented example's prompt, and of the token that ends an answer."""
    ids = [*prompt_ids(tokenizer, _NOTE, _QUESTION), end_token_id(tokenizer)]
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()
