"""Loads a run's YAML into its configuration dataclass, with `key=value` overrides.

Unknown keys, duplicate YAML keys, wrong types and values out of range are refused with a message that names the file
and the key.
"""

import dataclasses
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TextIO, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from hvlm.errors import UserError

C = TypeVar("C")
_ANYTHING = TypeAdapter[Any](Any, config=ConfigDict(ser_json_inf_nan="constants"))  # infinity is refused, not null


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChoice(Generic[C]):
    """Several configuration types, of which the value of `key` in the file chooses one; without the key, `default`."""

    key: str
    default: str
    types: Mapping[str, type[C]]

    def chosen_by(self, values: Mapping[str, Any], origin: str) -> type[C]:
        """Return the type for these plain values.

        Raises:
            UserError: the key names none.
        """
        name = values.get(self.key, self.default)
        if isinstance(name, str) and name in self.types:
            return self.types[name]
        raise UserError(
            what=f"{origin}, {self.key}",
            got=name,
            expected=f"one of {', '.join(self.types)}",
            do=f"correct it; without the key it is {self.default}",
        )


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; this loader refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # a list or mapping as key: PyYAML refuses it below, with its place
            if key in seen:
                raise UserError(
                    what=f"{node.start_mark.name}, line {key_node.start_mark.line + 1}",
                    got=f"the key '{key}' a second time",
                    expected="each key once",
                    do="delete one of the two",
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML follows, takes 1e-4 for a string, as it has no point.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def load_yaml(path: str) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: no such file, not readable, not YAML, duplicate keys, or no mapping at the top.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            loaded = _parse(stream)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(
            what="--config",
            got=path,
            expected="an existing YAML file",
            do="check the path (jobs/configs/ has examples)",
        ) from error
    except OSError as error:
        raise UserError(
            what="--config", got=f"{path}: {error.strerror}", expected="a file that can be read", do="let it be read"
        ) from error
    except yaml.YAMLError as error:
        raise UserError(
            what=path, got=str(error).replace("\n", " "), expected="valid YAML in UTF-8", do="mend the file there"
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(
            what=path,
            got=type(loaded).__name__,
            expected="a mapping of keys to values",
            do="start from a file in jobs/configs/",
        )
    return loaded


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `values` with each `a.b.c=value` set; the value is read as YAML."""
    merged = _copy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(what="override", got=override, expected="key=value", do="write e.g. decode.backend=pyav")
        try:
            value = _override_value(text)
        except yaml.YAMLError as error:
            raise UserError(what="override", got=override, expected="a YAML value after '='", do="quote it") from error
        merged = set_values(merged, {key: value})
    return merged


def set_values(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `values` with each dotted key of `changes` set to its value.

    Raises:
        UserError: a key leads through something that is no mapping.
    """
    merged: dict[str, Any] = _copy(values)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = merged
        for parent in parents:
            child = node.get(parent)
            if child is None:
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise UserError(
                    what="override",
                    got=f"{key}={value}",
                    expected=f"'{parent}' to hold further keys",
                    do="check the key against the config file",
                )
            node = child
        node[last] = _copy(value) if isinstance(value, dict) else value
    return merged


def load_config(config_type: type[C] | ConfigChoice[C], path: str, overrides: Sequence[str] = ()) -> C:
    """Return the configuration in `path` with the overrides applied.

    Raises:
        UserError: naming the file and every key that is unknown, missing, of a wrong type or out of range.
    """
    return build_config(config_type, apply_overrides(load_yaml(path), overrides), origin=path)


def build_config(config_type: type[C] | ConfigChoice[C], values: dict[str, Any], *, origin: str) -> C:
    """Return the configuration that a mapping of plain values holds; `origin` names it in errors."""
    if isinstance(config_type, ConfigChoice):
        config_type = config_type.chosen_by(values, origin)
    try:
        # Strict: `true` is no number, "8" neither. As JSON, where a list is a tuple and 1 a float also when strict.
        return TypeAdapter(config_type).validate_json(_ANYTHING.dump_json(values), strict=True)
    except ValidationError as error:
        raise UserError(
            what=origin,
            got="; ".join(_describe(item) for item in error.errors()),
            expected=f"the keys of {config_type.__name__}",
            do="correct these keys (the README names the config of each job)",
        ) from error


def dump_config(config: object) -> dict[str, Any]:
    """Return a configuration as plain values that `build_config` reads back to an equal one."""
    plain: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return plain


def flatten_config(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return `{"a.b": value}` of a configuration, for MLflow parameters."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten_config(value, f"{prefix}{field.name}.")
        else:
            flat[prefix + field.name] = value
    return flat


def _describe(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(top)"
    if item["type"] == "unexpected_keyword_argument":
        return f"{key} is not a known key"
    if item["type"] in ("missing", "missing_argument"):
        return f"{key} is missing"
    if item["type"] == "value_error":  # one of ours, which names the key and what it got
        message = item["msg"].removeprefix("Value error, ")
        return f"in {key}: {message}" if item["loc"] else message
    return f"{key}={item['input']!r}: {item['msg']}"


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in values.items()}


def _override_value(text: str) -> Any:
    """Return the value of an override: a command line has no comments, `/data/my videos #2` is all path."""
    value, plain = _parse(text), text.strip()
    return plain if isinstance(value, str) and plain[0] not in "'\"|>" else value


def _parse(text: str | TextIO) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except UserError:
        raise
    except ValueError as error:  # not UTF-8, or a date such as 2024-13-45
        raise yaml.YAMLError(str(error)) from error
