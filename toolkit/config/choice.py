"""How a value in a config picks a class: `model.arch`, `network.type`, `train.optimizer`, a process's `type`."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from toolkit.config.names import suggestion
from toolkit.config.section import Section, copy_errors
from toolkit.config.upstream_names import UPSTREAM_NAMES
from toolkit.registry import UnknownName, get_registry


def chosen(kind: str, *, by: str) -> Choice:
    """Annotation of a field whose class is the plugin of `kind` that the key `by` inside the value names."""
    return Choice(kind, by)


def load_plugin(kind: str, name: str) -> Any:
    """The plugin class; a ValueError says which names there are, and which of them is near."""
    try:
        return get_registry().load(kind, name)
    except UnknownName as error:
        if name in UPSTREAM_NAMES.get(kind, ()):
            known = ", ".join(error.known) or "none"
            raise ValueError(f"'{name}' of ai-toolkit is not supported yet (known: {known})") from None
        raise


def refuse(title: str, key: str, value: Any, message: str) -> ValidationError:
    """A validation error at the key `key` inside the value that is being validated."""
    error = PydanticCustomError("refused", "{message}", {"message": message})
    return ValidationError.from_exception_data(title, [InitErrorDetails(type=error, loc=(key,), input=value)])


def check_options(kind: str, name: str, options: Mapping[str, Any], context: Any) -> Any:
    """The plugin `name` with these options; an option that it does not have is named together with those it has."""
    plugin = load_plugin(kind, name)
    try:
        return plugin.model_validate(dict(options), context=context)
    except ValidationError as error:
        known = ", ".join(plugin.model_fields) or "none"
        errors = copy_errors(error)
        for item in errors:
            if item["type"] == "extra_forbidden":
                key = str(item["loc"][-1])
                message = f"{name} has no such option{suggestion(key, plugin.model_fields)} (known: {known})"
                item["type"] = PydanticCustomError("refused", "{message}", {"message": message})
        raise ValidationError.from_exception_data(plugin.__name__, errors) from None


@dataclass(frozen=True)
class Choice:
    """Makes a pydantic field look its class up in the registry, one value at a time: other plugins stay unloaded."""

    kind: str
    by: str

    def section(self, base: type[Section], value: Any) -> Any:
        """The plugin class for `value`, a mapping from a config; raises ValidationError at the key that names it."""
        name = value.get(self.by)
        if name is None:
            default = base.model_fields[self.by].get_default()
            name = default if isinstance(default, str) else None
        if not isinstance(name, str):
            known = ", ".join(get_registry().entries(self.kind)) or "none"
            raise refuse(base.__name__, self.by, name, f"missing: which one? (known: {known})")
        try:
            return load_plugin(self.kind, name)
        except ValueError as error:
            raise refuse(base.__name__, self.by, name, str(error)) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        base = base_of(source)

        def pick(value: Any, info: ValidationInfo) -> Any:
            if isinstance(value, base):
                return value
            if not isinstance(value, Mapping):
                raise PydanticCustomError("refused", "{message}", {"message": "must be a group of keys"})
            return self.section(base, value).model_validate(dict(value), context=info.context)

        return core_schema.with_info_plain_validator_function(pick)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # the alternatives are filled in by json_schema.py, which may load every plugin
        return {"type": "object", "x-aitk-choice": [self.kind, self.by]}


def base_of(annotation: Any) -> Any:
    """X of X, X | None and Optional[X]."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation
