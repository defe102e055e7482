"""The body of a chat request, in the shape that a model takes: what it refused is not sent to it again."""

import logging

from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Request
from asclepius_ray.chat.replies import Refusal

logger = logging.getLogger(__name__)


class Body:
    """One endpoint's way; newer models want max_completion_tokens, and reasoning models no temperature."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._max_tokens_name = "max_tokens"
        self._has_temperature = True

    def write(self, request: Request, max_tokens: int) -> dict[str, object]:
        body: dict[str, object] = {
            "model": self._endpoint.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
            self._max_tokens_name: max_tokens,
        }
        if self._has_temperature:
            body["temperature"] = request.temperature
        return body | dict(self._endpoint.extra_body)

    def adapt(self, refusal: Refusal) -> bool:
        """True where the refusal is of a field that goes otherwise, or not at all, from now on.

        The refusal names a field that was sent, so no request is sent again and again.
        """
        if refusal is Refusal.RENAME_MAX_TOKENS:
            self._max_tokens_name = "max_completion_tokens"
            return True
        if refusal is not Refusal.DROP_TEMPERATURE:
            return False
        if self._has_temperature:
            logger.warning(
                "%s takes no temperature for the model %s; the run file's is not used",
                self._endpoint.host,
                self._endpoint.model,
            )
        self._has_temperature = False
        return True
