"""The chat template of a model that comes without one; it is saved with the model.

It needs no token beyond the model's own beginning and end of a sequence, so the vocabulary stays
as it is. Without a system turn the text is: User:, the content, Assistant:, the answer, the end.
"""

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
