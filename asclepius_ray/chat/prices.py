"""What a call costs: tokens and a price per million → US dollars, None where no price is known."""

from asclepius_ray.chat.config import PriceConfig

CHARACTERS_PER_TOKEN = 4


def cost_usd(price: PriceConfig | None, prompt_tokens: int, completion_tokens: int) -> float | None:
    """The cost at `price`; None means unknown, which is not 0."""
    if price is None:
        return None
    input_usd = prompt_tokens * price.input_usd_per_million_tokens
    output_usd = completion_tokens * price.output_usd_per_million_tokens
    return (input_usd + output_usd) / 1_000_000


def estimate_tokens(text: str) -> int:
    """Tokens guessed from characters, rounded up; English clinical text has about four to a token."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)
