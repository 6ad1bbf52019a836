"""May this graph run? The answers of ComfyUI's POST /prompt, word for word where clients compare them.

Values are cast in place, as ComfyUI does: the queue and the history show the cast ones. Nothing is executed.

Source: ComfyUI a125cd84, ``execution.py`` (validate_prompt, validate_inputs); recorded answers for each case. The names
``missing_node_type`` and ``dependency_cycle`` are those of later versions.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.embedded.files import Folders
from gateway.embedded.node import Graph, NodeType

Error = dict[str, Any]
#: Longer option lists are not repeated in an answer.
_LONGEST_REPEATED_LIST = 20
_LINK_LENGTH = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What POST /prompt says. ``error`` is None when at least one output may run; ``outputs`` are those that may."""

    error: Error | None = None
    outputs: list[str] = field(default_factory=list)
    node_errors: dict[str, Any] = field(default_factory=dict)


class _CycleError(Exception):
    """The graph runs in a circle."""


def is_link(value: object) -> bool:
    """Is this input value a link ``[node id, slot]``?"""
    return (
        isinstance(value, list)
        and len(value) == _LINK_LENGTH
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def prompt_error(kind: str, message: str, details: str = "", extra_info: dict[str, Any] | None = None) -> Error:
    """The ``error`` object of an answer."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info or {}}


def validate_prompt(
    graph: Graph,
    registry: Mapping[str, NodeType],
    folders: Folders,
    *,
    targets: Collection[str] | None = None,
    named_graph_errors: bool = False,
) -> Verdict:
    """Judge a graph.

    Args:
        graph: node id → node, API format; literals are cast in place.
        registry: the classes there are.
        folders: where file inputs are looked up.
        targets: output nodes to run; None is all.
        named_graph_errors: use the error types of later versions for unknown classes and cycles.
    """
    outputs = []
    for node_id, node in graph.items():
        # A node may be any JSON value here; "in" is all that ComfyUI asks of it first.
        class_type = node["class_type"] if "class_type" in node else None  # noqa: SIM401
        if class_type is None or class_type not in registry:
            return Verdict(_class_error(node_id, node, named=named_graph_errors))
        if registry[class_type].is_output and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(prompt_error("prompt_no_outputs", "Prompt has no outputs"))
    return _judge_outputs(_Validator(graph, registry, folders), outputs, named=named_graph_errors)


def _class_error(node_id: str, node: Any, *, named: bool) -> Error:
    class_type = None
    if "class_type" not in node:
        message = "Cannot execute because a node is missing the class_type property."
    else:
        class_type = node["class_type"]
        message = f"Cannot execute because node {class_type} does not exist."
    if not named:
        return prompt_error("invalid_prompt", message, f"Node ID '#{node_id}'")
    meta = node.get("_meta") if isinstance(node, dict) else None
    title = meta.get("title", class_type) if isinstance(meta, dict) else class_type
    extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return prompt_error("missing_node_type", message, f"Node ID '#{node_id}'", extra)


def _judge_outputs(validator: _Validator, outputs: list[str], *, named: bool) -> Verdict:
    good: list[str] = []
    node_errors: dict[str, Any] = {}
    details: list[str] = []
    for output in outputs:
        reasons = validator.judge_output(output, named=named)
        if reasons is None:
            good.append(output)
            continue
        details += [f"{reason['message']}: {reason['details']}" for reason in reasons]
        for node_id, errors in validator.judged.items():
            if errors:
                entry = {
                    "errors": errors,
                    "dependent_outputs": [],
                    "class_type": validator.graph[node_id]["class_type"],
                }
                node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if good:
        return Verdict(None, good, node_errors)
    error = prompt_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(details))
    return Verdict(error, [], node_errors)


class _Validator:
    """Judges nodes, each once.

    Attributes:
        judged: node id → its own errors, None when it is valid, [] when only a node before it is not.
    """

    def __init__(self, graph: Graph, registry: Mapping[str, NodeType], folders: Folders) -> None:
        self.graph = graph
        self.registry = registry
        self.folders = folders
        self.judged: dict[str, list[Error] | None] = {}
        self._open: list[str] = []

    def judge_output(self, node_id: str, *, named: bool) -> list[Error] | None:
        """The output's own errors; None when it and all before it are valid."""
        try:
            return self._judge(node_id)
        except _CycleError as cycle:
            self._open.clear()
            if named:
                path = str(cycle)
                reasons = [prompt_error("dependency_cycle", "Dependency cycle detected", path, {"nodes": path})]
                self.judged[node_id] = reasons
                return reasons
            # 0.3.64 runs into its recursion limit here and says nothing but that the output failed.
            return []
        except Exception as error:  # noqa: BLE001 - whatever a malformed node causes is reported to the client
            self._open.clear()
            reasons = [
                prompt_error(
                    "exception_during_validation",
                    "Exception when validating node",
                    str(error),
                    {"exception_type": type(error).__name__, "traceback": traceback.format_tb(error.__traceback__)},
                )
            ]
            self.judged[node_id] = reasons
            return reasons

    def _judge(self, node_id: str) -> list[Error] | None:
        if node_id in self.judged:
            return self.judged[node_id]
        if node_id in self._open:
            raise _CycleError(" -> ".join([*self._open[self._open.index(node_id) :], node_id]))
        self._open.append(node_id)
        inputs = self.graph[node_id]["inputs"]
        node_type = self.registry[self.graph[node_id]["class_type"]]
        table = node_type.inputs(self.folders)
        errors: list[Error] = []
        valid = True
        for part in ("required", "optional"):
            for name, declared in table.get(part, {}).items():
                if name not in inputs:
                    if part == "required":
                        errors.append(_error("required_input_missing", "Required input is missing", name))
                elif isinstance(inputs[name], list):
                    valid = self._judge_link(node_type, name, declared, inputs[name], errors) and valid
                else:
                    errors += _judge_literal(node_type, name, declared, inputs)
        errors += self._judge_files(node_type, inputs)
        self._open.pop()
        self.judged[node_id] = errors if errors or not valid else None
        return self.judged[node_id]

    def _judge_files(self, node_type: NodeType, inputs: Mapping[str, Any]) -> list[Error]:
        wanted = {name: inputs[name] for name in node_type.checked_inputs if not is_link(inputs.get(name, []))}
        wrong = node_type.check(self.folders, {name: value for name, value in wanted.items() if name in inputs})
        message = "Custom validation failed for node"
        return [
            _error("custom_validation_failed", message, name, f"{name} - {reason}") for name, reason in wrong.items()
        ]

    def _judge_link(self, node_type: NodeType, name: str, declared: Any, link: list[Any], errors: list[Error]) -> bool:
        """Is what stands before this link valid? Errors of the link itself are added to ``errors``."""
        config = _config(declared)
        if len(link) != _LINK_LENGTH:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            errors.append(_error("bad_linked_input", message, name, input_config=config, received_value=link))
            return True
        source = link[0]
        received = self.registry[self.graph[source]["class_type"]].return_types[link[1]]
        accepted = {"*", config[0] if isinstance(config[0], str) else None} | node_type.also_accepts.get(
            name, frozenset()
        )
        if received not in accepted:
            details = f"{name}, received_type({received}) mismatch input_type({config[0]})"
            extra = {"input_config": config, "received_type": received, "linked_node": link}
            message = "Return type mismatch between linked nodes"
            errors.append(_error("return_type_mismatch", message, name, details, **extra))
            return True
        try:
            return self._judge(source) is None
        except _CycleError:
            raise
        except Exception as error:  # noqa: BLE001 - as above: the client is told what its graph caused
            del self._open[self._open.index(source) :]
            self.judged[source] = [_inner_exception(error, name, config, link)]
            return False


def _inner_exception(error: Exception, name: str, config: list[Any], link: list[Any]) -> Error:
    return _error(
        "exception_during_inner_validation",
        "Exception when validating inner node",
        name,
        str(error),
        input_config=config,
        exception_message=str(error),
        exception_type=type(error).__name__,
        traceback=traceback.format_tb(error.__traceback__),
        linked_node=link,
    )


_CASTS: Mapping[Any, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def _judge_literal(node_type: NodeType, name: str, declared: Any, inputs: dict[str, Any]) -> list[Error]:
    kind, options = _config(declared)
    value = inputs[name]
    if isinstance(value, dict) and "__value__" in value:
        value = inputs[name] = value["__value__"]
    if isinstance(kind, str) and kind in _CASTS:
        try:
            value = inputs[name] = _CASTS[kind](value)
        except (TypeError, ValueError, OverflowError) as error:
            message = f"Failed to convert an input value to a {kind} value"
            extra = {"input_config": [kind, options], "received_value": value, "exception_message": str(error)}
            return [_error("invalid_input_type", message, name, f"{name}, {value}, {error}", **extra)]
    if name in node_type.checked_inputs:
        return []
    return _judge_range(name, kind, options, value)


def _judge_range(name: str, kind: Any, options: Mapping[str, Any], value: Any) -> list[Error]:
    extra = {"input_config": [kind, options], "received_value": value}
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return [_error("value_smaller_than_min", message, name, **extra)]
    if "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        return [_error("value_bigger_than_max", message, name, **extra)]
    if isinstance(kind, list) and value not in kind:
        listed = str(kind)
        if len(kind) > _LONGEST_REPEATED_LIST:
            listed, extra["input_config"] = f"(list of length {len(kind)})", None
        return [_error("value_not_in_list", "Value not in list", name, f"{name}: '{value}' not in {listed}", **extra)]
    return []


def _config(declared: Any) -> list[Any]:
    """A table entry as ``[type, options]``."""
    return [declared[0], declared[1] if len(declared) > 1 else {}]


def _error(kind: str, message: str, name: str, details: str | None = None, **extra: Any) -> Error:
    return prompt_error(kind, message, name if details is None else details, {"input_name": name, **extra})
