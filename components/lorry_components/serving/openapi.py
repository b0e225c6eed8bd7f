"""The OpenAPI document of the routes."""

from typing import Any

from lorry_components.serving.requests import Limits

_TASK = {"name": "task", "in": "path", "required": True, "schema": {"type": "string"}}
_NUMBER = {"name": "version", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"enum": ["text", "text_pair"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"const": "BYTES"},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}
_TEXT = {"type": "string", "minLength": 1}
_ROW = {
    "oneOf": [
        _TEXT,
        {
            "type": "object",
            "required": ["text"],
            "properties": {"text": _TEXT, "text_pair": _TEXT},
            "additionalProperties": False,
        },
    ]
}
_REFUSALS = {
    "400": "the request does not fit the task",
    "401": "a token is asked for, and the request has none that is known",
    "403": "the token is not for this task",
    "404": "no such task or version is served",
    "408": "the body took too long to arrive",
    "413": "the body is too large",
    "503": "too many rows are waiting, or the champion of the task is refused",
}
_UNSERVED = ("401", "403", "404", "503")


def describe_routes(version: str, limits: Limits) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        version: The version of Lorry.
        limits: How large a request may be.
    """
    # Whether rows are of one text or of two, the metadata of a task say.
    rows = {"type": "array", "items": _ROW, "minItems": 1, "maxItems": limits.rows}
    plain = _describe_body(rows) | {"additionalProperties": False}
    tensors = _describe_body({"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 2})
    paths: dict[str, Any] = {
        "/openapi.json": {"get": _describe("This document.")},
        "/v2": {"get": _describe("The server.")},
        "/v2/health/live": {"get": _describe("Whether the server runs.")},
        "/v2/health/ready": {"get": _describe("Whether the server answers.", "503")},
        "/metrics": {"get": _describe("Metrics for Prometheus.", "401", "403", media="text/plain")},
        "/tasks": {"get": _describe("The served versions, and what is refused.", "401")},
        "/tasks/{task}/predict": {
            "parameters": [_TASK],
            "post": _describe(
                "Predictions, as lorry predict --json prints them.",
                *_REFUSALS,
                body=plain,
                answer={"type": "array", "items": {"type": "object"}},
            ),
        },
    }
    for place, parameters in (
        ("/v2/models/{task}", [_TASK]),
        ("/v2/models/{task}/versions/{version}", [_TASK, _NUMBER]),
    ):
        shared = {"parameters": parameters}
        paths[place] = {**shared, "get": _describe("The tensors of a task.", *_UNSERVED)}
        paths[f"{place}/ready"] = {**shared, "get": _describe("Whether it answers.", *_UNSERVED)}
        paths[f"{place}/infer"] = {**shared, "post": _describe("Predictions.", *_REFUSALS, body=tensors)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "lorry serve", "version": version},
        "paths": paths,
        # Either of them: without --tokens no token is asked for.
        "security": [{}, {"token": []}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _describe_body(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": ["inputs"], "properties": {"inputs": inputs}}


def _describe(
    summary: str,
    *refusals: str,
    body: dict[str, Any] | None = None,
    answer: dict[str, Any] | None = None,
    media: str = "application/json",
) -> dict[str, Any]:
    refused = {"application/json": {"schema": {"type": "object"}}}
    schema = answer or {"type": "object" if media in refused else "string"}
    responses: dict[str, Any] = {"200": {"description": "the answer", "content": {media: {"schema": schema}}}}
    responses |= {code: {"description": _REFUSALS[code], "content": refused} for code in refusals}
    described: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return described
