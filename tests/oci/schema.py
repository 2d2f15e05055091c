"""Validates a file against a JSON schema of the image specification, as Debian packages it.

schema.py SCHEMA FILE..."""

import json
import os
import sys
import warnings

warnings.simplefilter("ignore")
import jsonschema

PLACE = "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema"


def without_ids(schema):
    """References are to files beside, but the ids of schemas and their parts say that they are elsewhere."""
    if isinstance(schema, dict):
        return {k: without_ids(v) for k, v in schema.items() if not (k == "id" and isinstance(v, str))}
    return [without_ids(v) for v in schema] if isinstance(schema, list) else schema


schemas = {}
for name in os.listdir(PLACE):
    if name.endswith(".json"):
        with open(f"{PLACE}/{name}") as file:
            schemas[f"file:///{name}"] = without_ids(json.load(file))

name = f"file:///{sys.argv[1]}"
resolver = jsonschema.RefResolver(name, schemas[name], store=schemas)
validator = jsonschema.Draft4Validator(schemas[name], resolver=resolver)
for path in sys.argv[2:]:
    with open(path) as file:
        validator.validate(json.load(file))
