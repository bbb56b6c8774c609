"""Documents by a JSON Schema: the schema's file is the argument; a line of stdin is a name, a tab, a document."""

import json
import sys

import jsonschema

validator = jsonschema.Draft202012Validator(json.load(open(sys.argv[1], encoding="utf-8")))
documents = faults = 0
for line in sys.stdin:
    name, document = line.rstrip("\n").split("\t", 1)
    documents += 1
    for error in validator.iter_errors(json.loads(document)):
        faults += 1
        print(f"{name}: {error.json_path}: {error.message[:300]}")
print(f"{documents} documents, {faults} faults")
sys.exit(1 if faults else 0)
