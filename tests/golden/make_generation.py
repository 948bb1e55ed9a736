#!/usr/bin/env python3
"""Makes generation.h5 beside this script: what transformers' generate() continues prompts with, greedily, in fp32.

The models are those of the other golden files, weights and all, so this runs after make_golden.py. A prompt is kept
only when at every step the likeliest token leads by MARGIN, so that rounding does not decide, and the tokens vary.

Needs torch, transformers and h5py.
"""

import argparse
import json
import pathlib

import h5py
import numpy as np
import torch
import transformers

FOLDER = pathlib.Path(__file__).parent
MODELS = ["untied_gqa", "tied_llama3_rope", "head_dim", "head_64", "odd_packed", "qwen2", "qwen3", "mistral"]
LENGTHS = [1, 7, 23]  # of the prompts, in tokens
NEW_TOKENS = 48
MARGIN = 1e-3  # between the two largest logits; fp32 leaves errors of 1e-5


def load(file: h5py.File) -> transformers.PreTrainedModel:
    members = json.loads(file.attrs["config"])
    config = transformers.AutoConfig.for_model(members.pop("model_type"), **members, attn_implementation="sdpa")
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    weights = {name: torch.from_numpy(data[()]) for name, data in file["weights"].items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model


def continue_greedily(model: transformers.PreTrainedModel, prompt: torch.Tensor) -> tuple[np.ndarray, float]:
    """The new tokens, and the smallest lead of one of them over the next best."""
    result = model.generate(
        prompt[None], attention_mask=torch.ones_like(prompt[None]), do_sample=False, max_new_tokens=NEW_TOKENS,
        eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_logits=True)
    best = torch.stack(result.logits)[:, 0].topk(2).values
    return result.sequences[0, len(prompt):].numpy().astype(np.int32), float((best[:, 0] - best[:, 1]).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help=f"which to make anew (default: all of {', '.join(MODELS)})")
    models = parser.parse_args().models or MODELS
    torch.set_num_threads(1)
    with h5py.File(FOLDER / "generation.h5", "a", libver=("earliest", "v110")) as out:
        for name in models:
            out.pop(name, None)
            out.create_group(name).attrs["made_by"] = (f"make_generation.py, torch {torch.__version__}, "
                                                       f"transformers {transformers.__version__}")
            with h5py.File(FOLDER / f"{name}.h5") as file:
                model = load(file)
            generator = torch.Generator().manual_seed(17)
            for number, length in enumerate(LENGTHS):
                lead = 0.0
                tokens = np.zeros(1)
                while lead < MARGIN or len(set(tokens.tolist())) < 3:
                    prompt = torch.randint(model.config.vocab_size, (length,), generator=generator)
                    tokens, lead = continue_greedily(model, prompt)
                out[f"{name}/prompt_{number}"] = prompt.numpy().astype(np.int32)
                out[f"{name}/continuation_{number}"] = tokens
                print(f"{name}: {length} tokens, {len(set(tokens.tolist()))} different new ones, lead {lead:.4f}")


if __name__ == "__main__":
    main()
