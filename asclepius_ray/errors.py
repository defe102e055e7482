"""Every error that a user can meet.

AsclepiusError                what is wrong, which value, what to do: one string
├── ConfigError               the run file, an override or an environment variable
├── InputError                case reports or notes that cannot be read
├── ArtifactError             a folder of the run that is damaged or of another format
├── StageChangedError         a finished stage whose settings are not those of the run file
├── LeaseError                the root is held by another live run
├── EndpointError             a chat endpoint that refuses us or cannot be reached
├── BudgetError               the budget of an endpoint or of the evaluation is reached
├── SynthesisError            the synthesis as a whole (not one row: a row's trouble is data)
├── TrainingError             no step ran, a model that cannot be opened, a loss that is not a number
├── ServingError              a model that cannot be served
├── EvaluationError           an evaluation with nothing to judge
├── SubmitError               a package or cluster that cannot take the job
├── PublishError              a dataset or model that must not, or cannot, go out
└── Interrupted               Ctrl-C, SIGTERM or `ray job stop`

Each takes exactly one string, so that it survives pickling through Ray.
"""


class AsclepiusError(Exception):
    """Base of all errors whose message is written for the user; `exit_code` is the process's."""

    exit_code = 1


class ConfigError(AsclepiusError, ValueError):
    exit_code = 2


class InputError(AsclepiusError, ValueError):
    exit_code = 2


class ArtifactError(AsclepiusError):
    pass


class StageChangedError(AsclepiusError):
    exit_code = 3


class LeaseError(AsclepiusError):
    exit_code = 4


class EndpointError(AsclepiusError):
    exit_code = 5


class BudgetError(AsclepiusError):
    exit_code = 6


class SynthesisError(AsclepiusError):
    pass


class TrainingError(AsclepiusError):
    pass


class ServingError(AsclepiusError):
    pass


class EvaluationError(AsclepiusError):
    pass


class SubmitError(AsclepiusError):
    pass


class PublishError(AsclepiusError):
    pass


class Interrupted(AsclepiusError):
    exit_code = 130


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
