"""Figures that the method's paper published, for standing beside our own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedPerplexity:
    """Perplexity of one set of texts under a LLaMA that was fine-tuned on 57,000 discharge summaries."""

    texts: str
    kind: str
    perplexity: float


PERPLEXITY_SOURCE = "Asclepius (arXiv 2309.00237), as a data card by others quotes it"
PUBLISHED_PERPLEXITIES = (
    PublishedPerplexity(
        "MIMIC-III discharge summaries", "real notes, those of the fine-tuning's source", 2.186
    ),
    PublishedPerplexity("i2b2", "real notes of other hospitals", 5.178),
    PublishedPerplexity("PMC-Patients", "case reports", 71.719),
    PublishedPerplexity("Asclepius", "synthetic notes", 4.816),
)
