"""Buys answers through the desk: what is bought already is not asked again, what is new is kept."""

from asclepius_ray.chat.client import ChatClient
from asclepius_ray.chat.desk_link import DeskLink, RunTrouble
from asclepius_ray.chat.desk_messages import Trouble
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.estimates import largest_usd
from asclepius_ray.chat.exchange import Completion, Entry, Failure, Request, request_key
from asclepius_ray.chat.gate import Patience, load_of
from asclepius_ray.chat.judgement import Trial
from asclepius_ray.chat.prices import cost_usd
from asclepius_ray.errors import EndpointError


class Buyer:
    """One worker's client with a link to the desk."""

    def __init__(self, endpoint: Endpoint, link: DeskLink) -> None:
        self.link = link
        self._endpoint = endpoint
        self._client = ChatClient(endpoint, link)

    async def complete(self, request: Request, patience: Patience) -> Completion | Failure:
        """The answer, from the journal or bought now; raises RunTrouble where the run as a whole ends."""
        load = load_of(request, request.max_tokens)
        key = request_key(self._endpoint.model, self._endpoint.extra_body, request)
        found = await self.link.claim(key, load)
        if isinstance(found, Entry):
            return found.answer
        trial = Trial(request.max_tokens)
        try:
            answer = await self._client.complete(request, trial, found, patience)
        except EndpointError as error:
            self.link.abandon(key)
            trouble = Trouble("endpoint", str(error))
            self.link.report(trouble)
            raise RunTrouble(trouble) from None
        except BaseException:
            self.link.abandon(key)
            raise
        self.link.deliver(entry_of(key, request, answer, trial, self._endpoint))
        return answer

    async def close(self) -> None:
        await self.link.close()
        await self._client.close()


def entry_of(
    key: bytes, request: Request, answer: Completion | Failure, trial: Trial, endpoint: Endpoint
) -> Entry:
    """The journal's entry, with what all attempts have cost, and what the broken ones may have."""
    unsettled = 0.0
    if endpoint.price is not None and trial.unsettled_attempts:
        load = load_of(request, trial.max_tokens)
        num_bytes = load.num_bytes + endpoint.num_extra_bytes
        bound = largest_usd(endpoint.price, num_bytes, load.num_messages, load.max_tokens)
        unsettled = trial.unsettled_attempts * bound
    cost = cost_usd(endpoint.price, answer.prompt_tokens, answer.completion_tokens)
    return Entry(key, request.step, answer, cost, unsettled)
