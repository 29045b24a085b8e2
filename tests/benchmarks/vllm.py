"""Asks vLLM itself about what `adapters vllm` makes: `python -m tests.benchmarks.vllm PYTHON`.

PYTHON is an interpreter that can import vLLM; no card is needed, and no model is loaded. An adapter of every method is
made on a small model; vLLM reads the command, the file, and each adapter's settings and names of weights by its own
code, and has to agree with the studio about every one.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from studio import __version__
from studio.domain.document import from_document
from studio.domain.methods import METHODS
from studio.domain.records import Model
from studio.engine import lora
from studio.services.models import RECORD
from studio.studio import Studio
from tests.engine.conftest import make_model

ASK = """
import json, sys
from safetensors import safe_open
from vllm import __version__
from vllm.config.lora import LoRAConfig
from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.utils import parse_fine_tuned_lora_name
from vllm.utils.argparse_utils import FlexibleArgumentParser

asked = json.load(open(sys.argv[1]))
parser = FlexibleArgumentParser()
make_arg_parser(parser.add_subparsers(dest="verb").add_parser("serve"))
read, said = [], {}
for words in asked["commands"]:
    options = parser.parse_args(words)
    validate_parsed_serve_args(options)
    read.append([options.max_lora_rank, options.max_loras, [each.name for each in options.lora_modules]])
limits = LoRAConfig(max_lora_rank=options.max_lora_rank, max_loras=options.max_loras)
for name, folder in asked["adapters"].items():
    try:
        PEFTHelper.from_local_dir(folder, 256).validate_legal(limits)
        with safe_open(folder + "/adapter_model.safetensors", "pt") as weights:
            [parse_fine_tuned_lora_name(key) for key in weights.keys()]
        said[name] = ""
    except ValueError as error:
        said[name] = str(error)
json.dump({"version": __version__, "read": read, "said": said}, open(sys.argv[1], "w"))
"""


def make(studio: Studio) -> list[str]:
    """Make a base, and an adapter of every method as a run writes it; return their names."""
    base = make_model(studio.home.models / "tiny", hidden_size=128, intermediate_size=128, head_dim=32)
    (base / RECORD).write_text(Model(id="some/tiny", path=str(base), source="hub").model_dump_json())
    facts = {"base": {"id": "some/tiny", "path": str(base), "revision": ""}, "precision": "fp32", "studio": __version__}
    facts |= {"rows": 1, "eval_rows": 0, "steps": 3, "effective_rows": 1, "learning_rate": 1e-4}
    for name in METHODS:
        config = from_document({"model": {"id": str(base)}, "data": {"path": "none"}, "method": {"name": name}})
        start, folder = studio.home.cache / name, studio.home.adapters / name / "v1"
        folder.parent.mkdir()
        model = lora.attach(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config, start, steps=3)
        lora.save(model, config, folder, start, facts | {"name": name, "method": name}, str(base))
    return list(METHODS)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(folder)
        plan = studio.vllm.plan(make(studio))
        file, question = Path(folder, "vllm.yaml"), Path(folder, "question.json")
        file.write_text(plan.config)
        commands = [plan.command[1:], ["serve", "--config", str(file)]]
        places = {adapter.ref: adapter.path for adapter in studio.adapters.list()}
        question.write_text(json.dumps({"commands": commands, "adapters": places}))
        environment = os.environ | {"VLLM_TARGET_DEVICE": "cpu", "VLLM_LOGGING_LEVEL": "ERROR"}
        subprocess.run([sys.argv[1], "-c", ASK, question], env=environment, cwd=folder, check=True)
        answer = json.loads(question.read_text())
    print(f"vLLM {answer['version']}. The command and the file are read as {answer['read']}.")
    ours = {each.adapter: each.why for each in plan.refused}
    for ref, theirs in answer["said"].items():
        agreed = "agreed" if bool(theirs) == (ref in ours) else "NOT AGREED"
        print(f"{agreed}  {ref}: {ours.get(ref, 'served')}  vLLM: {theirs or 'served'}")


if __name__ == "__main__":
    main()
