"""JSON schemas of the part of Prometheus Operator's API that our objects use. Other fields are errors.

From the CustomResourceDefinitions of Operator 0.82: monitoring.coreos.com/v1 and v1alpha1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "minLength": 1}
_TEXTS: Schema = {"type": "array", "items": _TEXT, "uniqueItems": True}
_TEXT_BY_NAME: Schema = {"type": "object", "additionalProperties": _TEXT}
#: With at least one unit; the API's own pattern also accepts an empty text.
_DURATION: Schema = {
    "type": "string",
    "pattern": r"^(0|(?=.)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?)$",
}


def _object(*, required: Sequence[str] = (), **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _resource(api_version: str, kind: str, spec: Schema) -> Schema:
    metadata = _object(required=["name"], name=_NAME, namespace=_NAME, labels=_TEXT_BY_NAME)
    return _object(
        required=["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )


_POD_MONITOR = _object(
    required=["selector", "podMetricsEndpoints"],
    namespaceSelector=_object(any={"type": "boolean"}, matchNames=_TEXTS),
    selector=_object(required=["matchLabels"], matchLabels=_TEXT_BY_NAME),
    podMetricsEndpoints=_list(
        _object(
            required=["port"],
            port=_NAME,
            interval=_DURATION,
            relabelings=_list(_object(sourceLabels=_TEXTS, targetLabel=_NAME)),
        )
    ),
)

_RULE_FIELDS: Mapping[str, Schema] = {"expr": _NAME, "labels": _TEXT_BY_NAME}
_RULE: Schema = {
    "oneOf": [
        _object(required=["record", "expr"], record=_NAME, **_RULE_FIELDS),
        _object(
            required=["alert", "expr"],
            alert=_NAME,
            annotations=_TEXT_BY_NAME,
            keep_firing_for=_DURATION,
            **{"for": _DURATION},
            **_RULE_FIELDS,
        ),
    ]
}
_PROMETHEUS_RULE = _object(
    required=["groups"],
    groups=_list(_object(required=["name", "rules"], name=_NAME, interval=_DURATION, rules=_list(_RULE))),
)

_MATCHERS = _list(
    _object(required=["name", "matchType"], name=_NAME, value=_TEXT, matchType={"enum": ["!=", "=", "=~", "!~"]})
)
_ROUTE: Schema = _object(
    required=["receiver"],
    receiver=_NAME,
    groupBy=_TEXTS,
    groupWait=_DURATION,
    groupInterval=_DURATION,
    repeatInterval=_DURATION,
    matchers=_MATCHERS,
    routes=_list({"$ref": "#/$defs/route"}),
)
_SECRET_KEY = _object(required=["name", "key"], name=_NAME, key=_NAME)
_ALERTMANAGER_CONFIG = _object(
    required=["route", "receivers"],
    route={"$ref": "#/$defs/route"},
    inhibitRules=_list(
        _object(required=["sourceMatch", "targetMatch"], sourceMatch=_MATCHERS, targetMatch=_MATCHERS, equal=_TEXTS)
    ),
    receivers=_list(
        _object(
            required=["name", "webhookConfigs"],
            name=_NAME,
            webhookConfigs=_list(_object(required=["urlSecret"], urlSecret=_SECRET_KEY)),
        )
    ),
)

SCHEMAS: Mapping[str, Schema] = {
    "PodMonitor": _resource("monitoring.coreos.com/v1", "PodMonitor", _POD_MONITOR),
    "PrometheusRule": _resource("monitoring.coreos.com/v1", "PrometheusRule", _PROMETHEUS_RULE),
    "AlertmanagerConfig": {
        **_resource("monitoring.coreos.com/v1alpha1", "AlertmanagerConfig", _ALERTMANAGER_CONFIG),
        "$defs": {"route": _ROUTE},
    },
}
