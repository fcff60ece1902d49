"""Section: a frozen group of config keys. `works`, `idle` and `planned` say what each key does today.

Every section, process, model, network and optimizer of a config is a Section; the class is the only home of its keys.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self

from toolkit.config.errors import KeyPath

Remarked = tuple[KeyPath, str]
"""A key path inside a section, and what is to be said about its value."""
State = Literal["works", "idle", "planned"]


def works(default: Any, description: str, *, ui: Any = None, needs: str | None = None, **constraints: Any) -> Any:
    """A key that does what its description says. `...` as default: required; a Section class: one with its defaults.

    `needs` is the key of the same section without which it has no effect; that is said where it is set alone, to
    something else than `default` or `ui`, which is what ai-toolkit's UI writes.
    """
    return _field("works", default, description, (ui,), constraints, needs)


def idle(default: Any, description: str, *, ui: Any = None) -> Any:
    """A key without effect, in ai-toolkit too: accepted; one notice if set to something else than `default` or `ui`."""
    return _field("idle", default, description, (ui,), {})


def planned(default: Any, description: str, *, ui: Any = None, needs: str | None = None, why: str = "") -> Any:
    """A key of ai-toolkit that is not supported: an error unless it is left at `default` or `ui`, or off.

    `needs` is the key of the same section without which it has no effect; while that one is off, it is only idle.
    `why` says why it is not, and what to do instead; without it, it is a key that is still to come.
    """
    return _field("planned", default, description, (ui,), {}, needs, why)


def _field(
    state: State,
    default: Any,
    description: str,
    neutral: tuple[Any, ...],
    constraints: dict[str, Any],
    needs: str | None = None,
    why: str = "",
) -> Any:
    extra: Any = {"state": state, "neutral": [value for value in neutral if value is not None], "needs": needs}
    if why:
        extra["why"] = why
    start = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return Field(**start, description=description, json_schema_extra=extra, **constraints)


def state_of(field: FieldInfo) -> State:
    """What a key does today; a plain pydantic field of a plugin works."""
    extra = field.json_schema_extra
    return extra.get("state", "works") if isinstance(extra, dict) else "works"  # type: ignore[return-value]


def why_idle(section: type[BaseModel], key: str, data: Mapping[str, Any]) -> str:
    """Why the value of a key has no effect beside the others in `data`; empty if it has one, or if nobody minds."""
    field = section.model_fields[key]
    if changes_nothing(field, data[key]):
        return ""
    if state_of(field) == "idle":
        return field.description or "not used"
    return _missing_switch(section, field, data)


def _missing_switch(section: type[BaseModel], field: FieldInfo, data: Mapping[str, Any]) -> str:
    extra = field.json_schema_extra
    needs = extra.get("needs") if isinstance(extra, dict) else None
    if not isinstance(needs, str):
        return ""
    switch = section.model_fields[needs]
    is_off = not data.get(needs) if state_of(switch) == "works" else changes_nothing(switch, data.get(needs))
    return f"{needs} is off" if is_off else ""


def changes_nothing(field: FieldInfo, value: Any) -> bool:
    """True if a planned or idle key has a value that means "off", its default, or what ai-toolkit's UI writes."""
    extra = field.json_schema_extra
    neutral = extra.get("neutral", []) if isinstance(extra, dict) else []
    default = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == default or value in neutral:  # type: ignore[operator]
        return True
    return not default and not (any(value.values()) if isinstance(value, Mapping) else value)


class Section(BaseModel):
    """A group of keys: frozen, unknown keys refused, an explicit null counts as missing."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        # a section is mostly validated as part of a process, whose validator has it inside
        defer_build=True,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check_keys(cls, data: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        """Drop nulls and refuse planned keys, together with whatever else is wrong."""
        if not isinstance(data, Mapping):
            return build(data)
        fields = cls.model_fields
        given = {key: value for key, value in data.items() if value is not None or key not in fields}
        refused = {key: given[key] for key in given if key in fields and not _is_supported(cls, key, given)}
        if not refused:
            return build(given)
        errors = [InitErrorDetails(type=_refusal(fields[key]), loc=(key,), input=refused[key]) for key in refused]
        try:
            build({key: value for key, value in given.items() if key not in refused})
        except ValidationError as error:
            errors += copy_errors(error)
        raise ValidationError.from_exception_data(cls.__name__, errors)

    def contradictions(self) -> Iterable[Remarked]:
        """Values inside this section that do not fit together: an error at the key that should be changed."""
        return ()

    def spelled_out(self) -> dict[str, Any]:
        """The keys of the resolved config: those that do something, and those that were set."""
        fields = type(self).model_fields
        own = [key for key in fields if state_of(fields[key]) == "works" or key in self.model_fields_set]
        return {**{key: getattr(self, key) for key in own}, **(self.model_extra or {})}


NOT_YET = PydanticCustomError("planned", "not supported yet (a key of ai-toolkit that aitk will get)")


def _refusal(field: FieldInfo) -> PydanticCustomError:
    extra = field.json_schema_extra
    why = extra.get("why") if isinstance(extra, dict) else None
    return PydanticCustomError("planned", "{message}", {"message": f"not supported: {why}"}) if why else NOT_YET


def copy_errors(error: ValidationError) -> list[InitErrorDetails]:
    """The errors inside a ValidationError, to be raised again as part of another one."""
    found = []
    for item in error.errors(include_url=False):
        custom = item["type"] in ("planned", "refused")
        kind = PydanticCustomError(item["type"], "{message}", {"message": item["msg"]}) if custom else item["type"]  # type: ignore[arg-type]
        found.append(InitErrorDetails(type=kind, loc=item["loc"], input=item["input"], ctx=item.get("ctx", {})))
    return found


def _is_supported(section: type[BaseModel], key: str, data: Mapping[str, Any]) -> bool:
    field = section.model_fields[key]
    return state_of(field) != "planned" or changes_nothing(field, data[key]) or bool(why_idle(section, key, data))
