import pytest

from asclepius_ray.synthesis.card import CardSource, render_card

COUNTS = {"input": 1, "ok": 1, "rejected": {}, "failed": {}}
DETAILS = {
    "teacher": {"model": "teacher", "is_offline": False},
    "rows": {"train": 1},
    "articles": {"train": 1},
    "tasks": {"Summarization": 1},
    "prompts": {"note": "0" * 64},
}


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("PMC-Patients-V2.json", "cc-by-nc-sa-4.0"),
        ("pmc_patients", "cc-by-nc-sa-4.0"),
        ("quickstart_reports.csv", "other"),
    ],
)
def test_the_cards_head_names_the_licence_of_pmc_patients_where_the_source_is_that(
    name: str, licence: str
) -> None:
    card = render_card(CardSource(name, "case_reports", 7), COUNTS, DETAILS)
    assert card.startswith("---\n")
    assert f"\nlicense: {licence}\n" in card.split("\n---\n")[0]
