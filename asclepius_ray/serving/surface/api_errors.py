"""Errors of the HTTP surface in OpenAI's shape; none repeats what the client sent."""

import math
from typing import Any

from starlette.responses import JSONResponse

RETRY_AFTER_SECONDS = 1
NOT_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class ApiError(Exception):
    """One refused request: its status, what is wrong, and the parameter that it is about.

    A 429 and a 503 say when to come again.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_seconds: int = RETRY_AFTER_SECONDS,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        """Of a 429 or 503: from then on the same request is likely to be taken."""

    @property
    def kind(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    @property
    def fields(self) -> dict[str, Any]:
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    @property
    def body(self) -> dict[str, Any]:
        return {"error": self.fields}

    def response(self) -> JSONResponse:
        headers = dict(NOT_KEPT)
        if self.status in (429, 503):
            headers["Retry-After"] = str(self.retry_after_seconds)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, status_code=self.status, headers=headers)


def whole_seconds(seconds: float) -> int:
    """For Retry-After: never so few that a client would come too early; of what is not known, the fewest."""
    return max(RETRY_AFTER_SECONDS, math.ceil(seconds)) if math.isfinite(seconds) else RETRY_AFTER_SECONDS


def invalid_value(param: str | None, message: str) -> ApiError:
    return ApiError(400, "invalid_value", message, param)


def context_length_exceeded(param: str, limit: int, prompt_tokens: int, answer_tokens: int) -> ApiError:
    return ApiError(
        400,
        "context_length_exceeded",
        f"This model's context length is {limit} tokens; the request needs {prompt_tokens + answer_tokens} "
        f"({prompt_tokens} of the prompt, {answer_tokens} for the answer).",
        param,
    )


def draining() -> ApiError:
    return ApiError(503, "draining", "This replica is being replaced; try again soon.")


def engine_unavailable() -> ApiError:
    return ApiError(503, "engine_unavailable", "The model cannot answer now; try again soon.")


def deadline_exceeded() -> ApiError:
    return ApiError(504, "deadline_exceeded", "The answer was not finished by the deadline of the request.")
