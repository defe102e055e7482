"""What the paper found with its own model and its own texts, to stand beside a run's perplexities."""

PAPER_PERPLEXITIES: tuple[dict[str, str | float], ...] = (
    {"name": "MIMIC-III discharge summaries (in domain)", "kind": "real", "perplexity": 2.186},
    {"name": "i2b2 (out of domain)", "kind": "real", "perplexity": 5.178},
    {"name": "PMC-Patients case reports", "kind": "case_reports", "perplexity": 71.719},
    {"name": "synthetic notes made of them", "kind": "synthetic", "perplexity": 4.816},
)
"""The lowest and the highest of the real notes, and the two that the paper compares with them."""

PAPER_PERPLEXITIES_SOURCE = (
    "Asclepius, arXiv 2309.00237, as a third-party data card quotes it: LLaMA fine-tuned on 57k discharge "
    "summaries of MIMIC-III. The other rows of that table, the unit of the perplexity and the windows are "
    "not in that card. Figures of another model or tokenizer compare in order, not in size."
)
