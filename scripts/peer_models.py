"""The models of the comparisons: directories that ours and transformers load, and GGUF files of the same weights.
Not run by itself."""

import json
import subprocess
import sys

import peers
from peers import ROOT, progress, require, shown

SEED = 0
GGUF = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2 = ROOT / "models/smollm2-135m"
# name -> directory, configuration and tokenizer of models of real size with random weights
RANDOM = {
    "qwen3": ("qwen3-0.6b-random", "configs/models/qwen3-0.6b.json", "tests/golden/qwen3/tokenizer.json"),
    "qwen3.5": ("qwen3.5-0.8b-random", "configs/models/qwen3.5-0.8b.json", "tests/golden/qwen3_5/tokenizer.json"),
}


def directory(name):
    """The directory of a model: the real SmolLM2, one of random weights, or a directory given by path."""
    if name == "smollm2":
        path = convert_smollm2()
    elif name in RANDOM:
        path = make_random(name)
    else:
        path = ROOT / name  # an absolute path stays as it is
    if not (path / "config.json").exists():
        hint = f"smollm2, {', '.join(RANDOM)}, or a directory"
        sys.exit(f"{name} is no model directory: it has no config.json\nhint: {hint}")
    return path


def convert_smollm2(gguf=GGUF):
    """SmolLM2 as a Hugging Face directory, made from its GGUF file if missing."""
    if not (SMOLLM2 / "model.safetensors").exists():
        if not gguf.exists():
            sys.exit(f"there is no {shown(gguf)}\nhint: scripts/fetch_model.sh")
        require("gguf", "safetensors", "tokenizers")
        progress(f"converting {gguf.name} to {shown(SMOLLM2)}")
        convert = [sys.executable, ROOT / "scripts/golden/convert_smollm2.py"]
        subprocess.run([*convert, "--gguf", gguf, "--out", SMOLLM2], check=True, stdout=sys.stderr)
    return SMOLLM2


def make_random(name):
    folder, config, tokenizer = RANDOM[name]
    path = ROOT / "models" / folder
    if not (path / "config.json").exists():
        progress(f"making {shown(path)} of random weights")
        spec = ROOT / "runs/peers/make.json"
        spec.parent.mkdir(parents=True, exist_ok=True)
        make = {"task": "make", "config": str(ROOT / config), "tokenizer": tokenizer, "seed": SEED, "out": str(path)}
        spec.write_text(json.dumps(make))
        peers.run([sys.executable, ROOT / "scripts/peer_hooks.py", spec], 1)
    return path


def gguf(path, kind):
    """The GGUF file of a directory's weights, made by the `gguf` package if missing."""
    file = path / f"model.{kind}.gguf"
    if not file.exists():
        require("gguf", "safetensors")
        progress(f"writing {shown(file)}")
        part = path / "gguf.part"  # so that the file only ever appears whole
        make = [sys.executable, ROOT / "scripts/golden/make_gguf.py", "--no-goldens", "--types", kind]
        subprocess.run([*make, "--model", path, "--out", part], check=True, stdout=sys.stderr)
        (part / file.name).rename(file)
        part.rmdir()
    return file


class Heads:
    """Which heads a model has: attention heads (L7H6), and value heads of delta nets (L2V3)."""

    def __init__(self, path):
        config = json.loads((path / "config.json").read_text())
        config = config.get("text_config", config)
        layers = config["num_hidden_layers"]
        kinds = config.get("layer_types") or ["full_attention"] * layers
        self.linear = [kind == "linear_attention" for kind in kinds]
        counts = {False: config["num_attention_heads"], True: config.get("linear_num_value_heads")}
        self.counts = [counts[linear] for linear in self.linear]
        self.layers, self.vocab = layers, config["vocab_size"]

    def name(self, layer, head):
        return f"L{layer}{'V' if self.linear[layer] else 'H'}{head}"

    def all(self):
        return [(layer, head) for layer, count in enumerate(self.counts) for head in range(count)]
