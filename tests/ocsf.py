#!/usr/bin/env python3
"""Checks OCSF findings, one JSON object a line on stdin, against the published schema of their version. Prints each fault."""
import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

schemas = {}
faults = 0
for number, line in enumerate(sys.stdin, 1):
    finding = json.loads(line)
    version, profiles = finding["metadata"]["version"], finding["metadata"]["profiles"]
    if version not in schemas:
        published = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
        name = published.lookup_class_name_from_uid(class_uid=finding["class_uid"])
        schema = published.get_class_schema(class_name=name, profiles=profiles)
        # The schema leaves unknown attributes to the profile; here every name must be known.
        schema["additionalProperties"] = False
        schemas[version] = Draft202012Validator(schema)
    for error in schemas[version].iter_errors(finding):
        faults += 1
        print(f"finding {number}: {'/'.join(map(str, error.absolute_path))}: {error.message[:300]}")
print(f"{number} findings, {faults} faults")
sys.exit(1 if faults else 0)
