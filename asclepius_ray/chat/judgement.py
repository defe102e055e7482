"""One reply after another → an answer, a failure, or another try. Pure; the same for every transport."""

from dataclasses import dataclass

from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.prices import estimate_tokens
from asclepius_ray.chat.replies import FailureReason, Reply


@dataclass
class Trial:
    """How far one request has come, over all its attempts."""

    max_tokens: int
    attempts: int = 0
    broken_attempts: int = 0
    """Those that count against the request."""
    unsettled_attempts: int = 0
    """Without a reply that could be read; the provider may have charged them."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_usage_estimated: bool = False
    resampled: bool = False
    lengthened: bool = False

    def fail(self, reason: FailureReason) -> Failure:
        return Failure(
            reason=reason,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            attempts=self.attempts,
            is_usage_estimated=self.is_usage_estimated,
        )

    def resample_or_fail(self, reason: FailureReason) -> Failure | None:
        """One more try for a reply that came out unusable; None = try again."""
        if self.resampled:
            return self.fail(reason)
        self.resampled = True
        return None

    def count_usage(self, request: Request, reply: Reply) -> tuple[int, int]:
        """Adds the reply's tokens, in and out, and returns them; estimated where none are reported."""
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            self.is_usage_estimated = True
        prompt_tokens = reply.prompt_tokens
        if prompt_tokens is None:
            prompt_tokens = sum(estimate_tokens(turn.content) for turn in request.messages)
        completion_tokens = reply.completion_tokens
        if completion_tokens is None:
            completion_tokens = estimate_tokens(reply.text)
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        return prompt_tokens, completion_tokens


def judge_reply(request: Request, reply: Reply | None, trial: Trial) -> Completion | Failure | None:
    """What a reply (None = malformed) means for its request; None = ask again, with trial.max_tokens."""
    if reply is None:
        return trial.resample_or_fail(FailureReason.MALFORMED)
    if reply.finish_reason == "content_filter":
        return trial.fail(FailureReason.CONTENT_FILTER)
    if reply.refused:
        return trial.fail(FailureReason.REFUSED)
    if reply.finish_reason == "length" and not request.accept_truncated:
        if trial.lengthened:
            return trial.fail(FailureReason.TRUNCATED)
        trial.lengthened = True
        trial.max_tokens *= 2
        return None
    if not reply.text.strip() and not request.accept_empty:
        return trial.resample_or_fail(FailureReason.EMPTY)
    return Completion(
        text=reply.text,
        finish_reason=reply.finish_reason,
        model=reply.model,
        prompt_tokens=trial.prompt_tokens,
        completion_tokens=trial.completion_tokens,
        attempts=trial.attempts,
        is_usage_estimated=trial.is_usage_estimated,
    )
