"""What the figures of `[evaluation.realism]` are made from, and whether it is there.

Needs neither ray nor torch.
"""

from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.realism_config import RealismConfig
from asclepius_ray.evaluation.realism_model import check_model, model_identity
from asclepius_ray.evaluation.realism_texts import check_texts, texts_identity


def check_realism(config: RealismConfig, token: str = "") -> None:
    """A ConfigError or InputError for a model or a set of texts that is not there; not for the run's own.

    To be called before the run has anything. `token` opens models of the hub that are not open to all.
    """
    check_texts(config)
    check_model(config.model, token)


def realism_made_from(root: Folder, config: RealismConfig, input_identity: str = "") -> dict[str, Any]:
    """Everything that the figures depend on but the seed: settings, the model, the content of the texts.

    `input_identity`: that of the run's own input, needed where "run:input" is a set.
    """
    return {
        **config.fingerprint(),
        "model_content": model_identity(root, config.model),
        "texts_content": {
            name: texts_identity(root, name, texts, input_identity)
            for name, texts in sorted(config.texts.items())
        },
    }
