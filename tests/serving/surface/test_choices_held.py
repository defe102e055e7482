"""What several choices to one prompt cost: the engine's cache, the usage and the key's limits."""

import asyncio
from pathlib import Path

from scripted_engine import ScriptedEngine, saying
from surfaces import model_on
from transformers import AutoTokenizer

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.access.keys import KeyLimits
from asclepius_ray.serving.surface.generation import Asked, plan
from asclepius_ray.serving.surface.responding import admit


def test_each_choice_holds_its_prompt_and_usage_and_limits_count_it_once(folder: Path) -> None:
    model = model_on("one", ScriptedEngine(saying([70])), AutoTokenizer.from_pretrained(folder))
    answering = plan(model, [[5] * 300, [6] * 100], [7, 9], Asked(num_choices=4))
    account = Account("r", "", Caller("k", limits=KeyLimits(max_in_flight=1)))

    async def ask() -> None:
        ticket = await admit(answering, account)
        assert model.admission.held_tokens == 4 * (300 + 7) + 4 * (100 + 9)
        [grant] = model.admission.limits._open.values()
        assert grant.reserved_tokens == 300 + 100 + 4 * (7 + 9)
        ticket.close("stop")
        await model.admission.limits.close()

    asyncio.run(ask())
    assert answering.usage["prompt_tokens"] == account.prompt_tokens == 400
    assert model.admission.held_tokens == 0
