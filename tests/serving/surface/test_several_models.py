"""`model` of a request chooses among several models and adapters of one address."""

from dataclasses import replace
from pathlib import Path

import openai
import pytest
from scripted_engine import ScriptedEngine, saying
from served_models import API_KEY
from surfaces import CLINICAL, Surface, model_on, open_surface
from transformers import AutoTokenizer

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.surface.surface import build_surface

BODY = {"messages": [{"role": "user", "content": "chest pain"}], "max_tokens": 12, "temperature": 0}


def test_each_model_answers_under_its_name(surface: Surface) -> None:
    assert [model.id for model in surface.client.models.list()] == ["trained", "untrained"]
    texts = {
        name: surface.client.chat.completions.create(model=name, **BODY).choices[0].message.content
        for name in surface.models
    }
    assert texts["trained"] != texts["untrained"]
    with pytest.raises(openai.NotFoundError) as unknown:
        surface.client.models.retrieve("another")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")


def test_an_adapter_is_a_model_of_its_own_on_the_same_engine(folder: Path) -> None:
    engine = ScriptedEngine(saying([70]))
    base = model_on("base", engine, AutoTokenizer.from_pretrained(folder))
    with open_surface(
        {"base": base, "of/ward 7": replace(base, name="of/ward 7", adapter="ward")}
    ) as surface:
        client = openai.OpenAI(base_url=f"{surface.address}/v1", api_key=API_KEY, max_retries=0)
        assert client.models.retrieve("of/ward 7").id == "of/ward 7"
        for name in ("base", "of/ward 7"):
            assert client.chat.completions.create(model=name, **BODY).model == name
        found = surface.post(CLINICAL, {"model": "of/ward 7", "note": "a", "question": "b"}).json()
        assert found["model"] == "of/ward 7"
    assert [request.adapter for request in engine.requests] == ["", "ward", "ward"]


def test_a_surface_without_a_model_is_refused() -> None:
    with pytest.raises(ServingError, match="needs a model"):
        build_surface({})
