"""The chat template of a model that comes without one; it is saved with the model.

It needs no token beyond the model's own beginning and end of a sequence, so the vocabulary stays
as it is. Without a system turn the text is: User:, the content, Assistant:, the answer, the end.
"""

import string
from datetime import datetime

from transformers import PreTrainedTokenizerBase

# Line ends stand inside expressions: the renderer drops those that follow a block.
PLAIN_CHAT_TEMPLATE = (
    "{{ bos_token | default('') }}"
    "{% for message in messages %}"
    "{{ (message['role'] | capitalize) + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if not loop.last %}{{ '\n\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:\n' }}{% endif %}"
)


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Gives the tokenizer the plain template if it has none; True if it did."""
    if tokenizer.chat_template:
        return False
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    return True


# Far apart, and different in every part that a date has.
_TWO_DAYS = (datetime(2001, 2, 3, 4, 5, 6), datetime(2062, 11, 24, 17, 48, 59))


def writes_the_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template's text depends on the day: then the same example has other tokens tomorrow."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    template = tokenizer.get_chat_template()
    texts = {
        tokenizer.apply_chat_template(turns, tokenize=False, chat_template=_calendar_of(day) + template)
        for day in _TWO_DAYS
    }
    return len(texts) > 1


def _calendar_of(day: datetime) -> str:
    """A macro that hides the renderer's own `strftime_now`, and formats this day."""
    directives = [f"%{flag}{letter}" for letter in string.ascii_letters for flag in ("", "-")]
    replaced = "".join(f"|replace('{each}', '{day.strftime(each)}')" for each in directives)
    return "{%- macro strftime_now(format) -%}{{ format" + replaced + " }}{%- endmacro -%}"
