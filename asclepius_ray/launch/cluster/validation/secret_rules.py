"""Keys that stand in a file instead of the name of a secret. Pure; no finding repeats what it found."""

import re
import tomllib
from collections.abc import Iterator

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.node_certificates import KEY_VARIABLE
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import Document, walk_texts, yaml_table
from asclepius_ray.launch.cluster.validation.reading import table_at, text_at
from asclepius_ray.launch.cluster.validation.started import parse_entrypoint
from asclepius_ray.launch.cluster.yaml_text import Json
from asclepius_ray.run import headers_in, headers_in_override

_NAME_OF_KEY = r"[A-Z0-9_]*(?:KEY|KEY_ID|TOKEN|SECRET|PASSWORD)"
_NAME = re.compile(_NAME_OF_KEY)
_ASSIGNED = re.compile(rf"\b{_NAME_OF_KEY}=[^\s$;]")
_KEY = re.compile(r"\b(sk-[\w-]{16,}|hf_\w{20,}|AKIA[0-9A-Z]{16}|ghp_\w{20,})|://[^/@\s]+:[^/@\s]+@")
_IN_QUERY = re.compile(
    r"[?&]((?:[\w-]*(?:key|token|secret|password|credential|signature))|sig)=[^\s&$]", re.IGNORECASE
)
_BEARER = re.compile(r"\bBearer\s+[\w.~+/-]{16,}", re.IGNORECASE)
_NAME_OF_SETTING = re.compile(r"(?:key|token|secret|password)(?:\[\d+\])*$", re.IGNORECASE)
_NO_SECRET = re.compile(
    r"(?:^|[._-])(?:(?:public|cache|sort|partition|primary)[_-]?key"
    r"|(?:bos|eos|pad|unk|sep|cls|mask|stop|start|end|image|audio|video)[_-]?token)(?:\[\d+\])*$",
    re.IGNORECASE,
)
"""Names of settings that end as those of secrets do: of hashes, of columns, of a tokenizer's marks."""
_REFERENCE = re.compile(r"\$\w+|.*\$\{\w+\}.*", re.DOTALL)
_PLACE = re.compile(r"(?:~?/|arn:|[a-z0-9]+://)[^\s]*")
"""Of a file that holds a key, or of a key that a cloud keeps."""
_ADVICE = "name it by secretKeyRef, or in the keys' file of the nodes"


def secrets_by_name(document: Document) -> Iterator[Trouble]:
    """Every key that stands in the document itself."""
    if document.kind == "Secret":
        said = "a secret in a file is one that everybody with the file has"
        yield Trouble("data", said, "make it with kubectl create secret, and leave it out here")
        return
    yield from _written_variables(document.value, "")
    yield from _written_headers(document)
    yield from _written_settings(document)
    for path, text in walk_texts(document.value):
        if _KEY.search(text) or _BEARER.search(text):
            yield Trouble(path, "it holds what looks like a key", _ADVICE)
        elif asked := _IN_QUERY.search(text):
            yield Trouble(path, f"an address in it holds the value of {asked.group(1)}", _ADVICE)
        elif found := _ASSIGNED.search(text):
            yield Trouble(path, f"it holds the value of {found.group().partition('=')[0]}", _ADVICE)


def _written_headers(document: Document) -> Iterator[Trouble]:
    """Headers of an endpoint, in a run file of a ConfigMap or in a job's command; each may hold a key."""
    advice = "leave them out, and give the key by the endpoint's api_key_env"
    for key, text in table_at(document.value, "data").items() if document.kind == "ConfigMap" else []:
        for section in headers_in(_run_file(str(text))):
            yield Trouble(f"data.{key}", f"{section} stand in it, and one of them may be a key", advice)
    entrypoint = parse_entrypoint(text_at(document.value, "spec", "entrypoint"))
    for override in entrypoint.overrides if entrypoint else ():
        if _has_headers(override):
            setting = override.partition("=")[0].strip()
            said = f"{setting} is shown to everybody who sees the dashboard, and a header may be a key"
            yield Trouble("spec.entrypoint", said, advice)


def _written_settings(document: Document) -> Iterator[Trouble]:
    """Settings inside a text of TOML or YAML, or of a job's command, that are named as keys and hold one."""
    for path, values in _tables_in(document):
        for setting, text in walk_texts(values):
            if _is_key_of(setting, text) and not (_KEY.search(text) or _BEARER.search(text)):
                yield Trouble(path, f"the value of {setting} is written out", _ADVICE)


def _tables_in(document: Document) -> Iterator[tuple[str, Json]]:
    """What a document holds as a text, with the path of the text; headers have a rule of their own."""
    if document.kind == "ConfigMap":
        for key, text in table_at(document.value, "data").items():
            yield f"data.{key}", {key: text}
            yield f"data.{key}", _without_headers(_run_file(str(text)))
    for key in ("runtimeEnvYAML", "serveConfigV2"):
        yield f"spec.{key}", yaml_table(text_at(document.value, "spec", key))
    entrypoint = parse_entrypoint(text_at(document.value, "spec", "entrypoint"))
    for override in entrypoint.overrides if entrypoint else ():
        name, _, text = override.partition("=")
        yield "spec.entrypoint", _without_headers(_run_file(override) or {name.strip(): text})


def _without_headers(values: Json) -> Json:
    return {
        name: _without_headers(inner) if isinstance(inner, dict) else inner
        for name, inner in values.items()
        if name != "headers"
    }


def _is_key_of(setting: str, text: str) -> bool:
    """Whether a setting is named as a secret is, and its text is one and no reference to one."""
    is_named = _NAME_OF_SETTING.search(setting) and not _NO_SECRET.search(setting)
    return bool(is_named and text and not _REFERENCE.fullmatch(text) and not _PLACE.fullmatch(text))


def _run_file(text: str) -> Json:
    """A run file's values; nothing where the text is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _has_headers(override: str) -> bool:
    try:
        return any(headers_in_override(override))
    except ConfigError:
        # Another rule says that it is no setting.
        return False


def _written_variables(value: object, path: str) -> Iterator[Trouble]:
    """Environment variables of pods that hold a key's value."""
    if isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _written_variables(inner, f"{path}[{place}]")
    if not isinstance(value, dict):
        return
    name, written = text_at(value, "name"), text_at(value, "value")
    # Ray's own name for the file that holds a key.
    is_file = name == KEY_VARIABLE and written.startswith("/")
    if _NAME.fullmatch(name) and written and not is_file and not _KEY.search(written):
        yield Trouble(f"{path}.value", f"the value of {name} is written out", _ADVICE)
    for key, inner in value.items():
        yield from _written_variables(inner, f"{path}.{key}" if path else str(key))
