"""The description itself: it is OpenAPI, and each example has the shape beside it."""

import json
import sys
import urllib.request

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

with urllib.request.urlopen(sys.argv[1]) as answer:
    document = json.load(answer)
validate(document)
components = document["components"]
checked = 0


def resolve(value):
    while "$ref" in value:
        value = components[value["$ref"].split("/")[2]][value["$ref"].split("/")[3]]
    return value


def check(value, place):
    """Looks for what has a schema and examples, wherever it stands."""
    global checked
    if isinstance(value, list):
        for item in value:
            check(item, place)
    elif isinstance(value, dict):
        examples = value.get("examples", {})
        examples = list(examples.values()) if isinstance(examples, dict) else []
        if "example" in value:
            examples.append({"value": value["example"]})
        if "schema" in value:
            shape = Draft202012Validator({**value["schema"], "components": components})
            for example in examples:
                faults = [fault.message for fault in shape.iter_errors(resolve(example)["value"])]
                assert not faults, f"{place}: {faults}"
                checked += 1
        for key, inner in value.items():
            check(inner, f"{place}/{key}")


check(document, "")
print(f"{checked} examples have the shapes that stand beside them")
