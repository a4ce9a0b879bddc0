"""Checks that an attribution.json keeps its schema, docs/schema/attribution-v1.json.

    python scripts/check_schema.py runs/x/attribution.json ...

Prints one line per file; otherwise names the first places that are wrong and exits 1. Needs jsonschema.
"""

import json
import pathlib
import sys

import jsonschema

SCHEMA = pathlib.Path(__file__).parent.parent / "docs/schema/attribution-v1.json"
SHOWN = 5


def main():
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name in sys.argv[1:]:
        attribution = json.loads(pathlib.Path(name).read_text())
        wrong = sorted(validator.iter_errors(attribution), key=lambda error: list(map(str, error.absolute_path)))
        if wrong:
            places = [f"  at {error.json_path}: {error.message[:200]}" for error in wrong[:SHOWN]]
            sys.exit("\n".join([f"{name}: {len(wrong)} places break {SCHEMA.name}", *places]))
        heads = sum(len(disposition["heads"]) for disposition in attribution["dispositions"])
        print(f"{name}: attribution/v1, {len(attribution['dispositions'])} dispositions, {heads} heads")


if __name__ == "__main__":
    main()
