#!/usr/bin/env python3
"""Makes Hugging Face folders beside this script, as transformers saves them, and what it computes from them.

`folder_untied` has bf16 weights in several files, `folder_tied` fp16 weights in one, those named for another
architecture bf16 weights in one. FOLDER.h5 has a pass in fp32 with
the weights as transformers loads them from the folder; layout in README.md, logits
of the first row only. The tokens are those of the byte tokenizer
for the text in the attribute `text`, so that the command line can be asked for the same loss.

Needs torch, transformers and h5py.
"""

import argparse
import pathlib
import shutil

import h5py
import torch
import transformers

import make_golden
from make_golden import Case

BEGIN_OF_TEXT, END_OF_TEXT = 256, 257
SIZES = dict(vocab_size=259, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8)
# Qwen 2 has no head size of its own.
SIZES_OF_HIDDEN = {key: size for key, size in SIZES.items() if key != "head_dim"} | dict(hidden_size=32)
ROWS, SEQUENCE = 4, 32
TEXT = ("Tokens are bytes here: the text that follows is as long as four rows of thirty-two tokens need, "
        "and not a byte more than these.")
FOLDERS = {
    "folder_untied": (Case("folder_untied", "bf16, several files", SIZES, ROWS, SEQUENCE, seed=11), torch.bfloat16),
    "folder_tied": (Case("folder_tied", "fp16, one file, tied embeddings", SIZES, ROWS, SEQUENCE, seed=12, tied=True,
                         rope_theta=500.0,
                         rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                           original_max_position_embeddings=32)), torch.float16),
    "folder_qwen2": (Case("folder_qwen2", "Qwen 2, bf16, tied embeddings", SIZES_OF_HIDDEN, ROWS, SEQUENCE, seed=31, weight_scale=0.15,
                          tied=True, model_type="qwen2"), torch.bfloat16),
    "folder_qwen3": (Case("folder_qwen3", "Qwen 3, bf16", SIZES, ROWS, SEQUENCE, seed=32, weight_scale=0.15, model_type="qwen3"),
                     torch.bfloat16),
    "folder_mistral": (Case("folder_mistral", "Mistral, bf16", SIZES | dict(sliding_window=None), ROWS, SEQUENCE,
                            seed=33, weight_scale=0.15, model_type="mistral"), torch.bfloat16),
}


def save_folder(folder: pathlib.Path, case: Case, dtype: torch.dtype) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model = make_golden.make_model(case).to(dtype)
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id = BEGIN_OF_TEXT, END_OF_TEXT
    model.save_pretrained(folder, max_shard_size="15KB" if case.name == "folder_untied" else "1GB")


def make_folder(root: pathlib.Path, case: Case, dtype: torch.dtype) -> None:
    save_folder(root / case.name, case, dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(root / case.name, dtype=torch.float32)
    ids = torch.tensor([BEGIN_OF_TEXT, *TEXT.encode(), END_OF_TEXT])
    assert len(ids) == ROWS * SEQUENCE + 1, f"the text must have {ROWS * SEQUENCE - 1} bytes, not {len(ids) - 2}"
    inputs, targets = (part.reshape(ROWS, SEQUENCE) for part in (ids[:-1], ids[1:]))
    results = [make_golden.forward_backward(m, inputs, targets) for m in (model, make_golden.make_double(model))]
    # Of all rows but the first the loss says enough.
    single, double = ({"logits": r["logits"][:1], "loss": r["loss"]} for r in results)
    with h5py.File(root / f"{case.name}.h5", "w", libver=("earliest", "v110")) as file:
        file.attrs["config"] = (root / case.name / "config.json").read_text()
        file.attrs["description"] = case.description
        file.attrs["made_by"] = f"make_folders.py, torch {torch.__version__}, transformers {transformers.__version__}"
        file.attrs["text"] = TEXT
        make_golden.write(file, "input_ids", make_golden.int32(inputs))
        make_golden.write(file, "labels", make_golden.int32(targets))
        worst = max(dict(make_golden.write_results(file, single, double)).values())
        file.attrs["largest_relative_difference_to_fp64"] = worst
    print(f"{case.name}: fp32 against fp64 at most {worst:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", help=f"which to make (default: all of {', '.join(FOLDERS)})")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, (case, dtype) in FOLDERS.items():
        if arguments.folders and name not in arguments.folders:
            continue
        make_folder(pathlib.Path(__file__).parent, case, dtype)


if __name__ == "__main__":
    main()
