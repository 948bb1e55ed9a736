#!/usr/bin/env python3
"""Makes the golden files beside this script: models of Hugging Face's transformers, run on the CPU in fp32.

Each number is computed a second time in fp64 by a separate path (own norms, own rotary frequencies), and the relative
difference of the two is stored beside it: what rounding alone accounts for.

Needs torch, transformers and h5py. The files in the repository were made with the versions named in their attributes.
"""

import argparse
import copy
import dataclasses
import math
import pathlib
import tempfile
from typing import Any, Callable, Iterator

import h5py
import numpy as np
import torch
import transformers

IGNORED = -1  # how the files mark a row without a target


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and the sizes of its batch. `sizes` are arguments of the model type's configuration."""

    name: str
    description: str
    sizes: dict[str, Any]
    batch: int
    sequence: int
    seed: int
    packed: bool = False
    steps: int = 0  # optimizer steps; 0: one forward and backward pass
    tied: bool = False
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] = dataclasses.field(default_factory=dict)
    weight_scale: float = 0.08
    model_type: str = "llama"


CASES = [
    Case(
        "untied_gqa",
        "untied embeddings, four query heads a key-value head",
        dict(vocab_size=256, hidden_size=64, intermediate_size=160, num_hidden_layers=2,
             num_attention_heads=8, num_key_value_heads=2),
        batch=4, sequence=32, seed=1),
    Case(
        "tied_llama3_rope",
        "tied embeddings, rotary frequencies scaled as Llama 3.1 does, in all three bands; TP up to 4, PP up to 4",
        dict(vocab_size=200, hidden_size=64, intermediate_size=96, num_hidden_layers=4,
             num_attention_heads=8, num_key_value_heads=4),
        batch=4, sequence=48, seed=2, tied=True, rope_theta=500.0,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=32)),
    Case(
        "head_dim",
        "a head size that is not hidden size / heads",
        dict(vocab_size=160, hidden_size=48, intermediate_size=112, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, head_dim=20),
        batch=4, sequence=24, seed=3, rope_theta=500000.0),
    Case(
        "head_64",
        "the head size of the 1B model, more rows than a tile of keys; the same batch once more as packed documents",
        dict(vocab_size=131, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, head_dim=64),
        batch=4, sequence=72, seed=7, packed=True),
    Case(
        "odd_packed",
        "five layers, odd vocabulary, feed-forward no power of two; the same batch once more as packed documents",
        dict(vocab_size=131, hidden_size=32, intermediate_size=90, num_hidden_layers=5,
             num_attention_heads=4, num_key_value_heads=2),
        batch=4, sequence=40, seed=4, packed=True),
    Case(
        "adamw_untied",
        "ten AdamW steps, three layers, odd vocabulary, untied embeddings",
        dict(vocab_size=131, hidden_size=32, intermediate_size=84, num_hidden_layers=3,
             num_attention_heads=4, num_key_value_heads=2),
        batch=8, sequence=24, seed=5, steps=10),
    Case(
        "adamw_tied",
        "ten AdamW steps, four layers, tied embeddings",
        dict(vocab_size=131, hidden_size=32, intermediate_size=84, num_hidden_layers=4,
             num_attention_heads=8, num_key_value_heads=4),
        # Of the seeds 6 to 11, the one where AdamW amplifies rounding least; see README.md.
        batch=8, sequence=24, seed=11, steps=10, tied=True),
    Case(
        "qwen2",
        "Qwen 2: biases on queries, keys and values; tied embeddings; the same batch once more as packed documents",
        dict(vocab_size=131, hidden_size=32, intermediate_size=90, num_hidden_layers=4,
             num_attention_heads=4, num_key_value_heads=2),
        batch=4, sequence=40, seed=21, packed=True, tied=True, model_type="qwen2"),
    Case(
        "qwen3",
        "Qwen 3: norms of query and key heads, a head size of its own; the same batch once more as packed documents",
        dict(vocab_size=131, hidden_size=32, intermediate_size=90, num_hidden_layers=4,
             num_attention_heads=4, num_key_value_heads=2, head_dim=20),
        batch=4, sequence=40, seed=22, packed=True, model_type="qwen3"),
    Case(
        "mistral",
        "Mistral without a window",
        dict(vocab_size=131, hidden_size=32, intermediate_size=90, num_hidden_layers=4,
             num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=None),
        batch=4, sequence=24, seed=23, model_type="mistral"),
    Case(
        "adamw_qwen2",
        "ten AdamW steps, biases, which do not decay",
        dict(vocab_size=131, hidden_size=32, intermediate_size=84, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2),
        batch=8, sequence=24, seed=24, steps=10, model_type="qwen2"),
    Case(
        "adamw_qwen3",
        "ten AdamW steps, norms of heads",
        dict(vocab_size=131, hidden_size=32, intermediate_size=84, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        batch=8, sequence=24, seed=25, steps=10, weight_scale=0.05, model_type="qwen3"),
]

OPTIMIZER = dict(learning_rate=3e-3, min_learning_rate=3e-4, warmup_steps=3, beta1=0.9, beta2=0.95, epsilon=1e-8,
                 weight_decay=0.1, grad_clip=1.0)


# --- models --------------------------------------------------------------------------------------------------


def make_config(case: Case) -> transformers.PretrainedConfig:
    rope = {"rope_type": "default"} | case.rope_scaling | {"rope_theta": case.rope_theta}
    return transformers.AutoConfig.for_model(
        case.model_type, **case.sizes, max_position_embeddings=512, rms_norm_eps=1e-5, rope_parameters=rope, bos_token_id=0,
        eos_token_id=1, tie_word_embeddings=case.tied, attn_implementation="sdpa")


def make_model(case: Case) -> transformers.PreTrainedModel:
    """Weights large enough, and norms far enough from 1, for every gradient to matter."""
    torch.manual_seed(case.seed)
    model = transformers.AutoModelForCausalLM.from_config(make_config(case)).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_norm = weight.dim() == 1 and not name.endswith(".bias")
            is_matrix = weight.dim() == 2
            weight.normal_(1.0 if is_norm else 0.0, case.weight_scale if is_matrix else 0.2)
    return model


def config_text(model: transformers.PreTrainedModel) -> str:
    """config.json as transformers writes it into a model folder."""
    with tempfile.TemporaryDirectory() as folder:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        return (pathlib.Path(folder) / "config.json").read_text()


def double_frequencies(config: transformers.PretrainedConfig) -> torch.Tensor:
    """Rotary frequencies from their definition, (head_dim / 2) fp64."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    frequencies = float(rope["rope_theta"]) ** -exponents
    if rope["rope_type"] == "default":
        return frequencies
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    unscaled_share = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    bands = [int((unscaled_share == value).sum()) for value in (0.0, 1.0)]
    assert all(bands) and sum(bands) < head_dim // 2, "scaling must act in all three bands"
    return frequencies * unscaled_share + frequencies / factor * (1 - unscaled_share)


def make_double(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """The same model in fp64 throughout: transformers itself computes norms and angles in fp32."""
    double = copy.deepcopy(model).double()
    frequencies = double_frequencies(model.config)

    def norm(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    def rotary(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].double() * frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()

    for module in double.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm.__get__(module)
        elif type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = rotary
    return double


# --- data ----------------------------------------------------------------------------------------------------


def random_tokens(case: Case, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 + case.seed)
    return torch.randint(case.sizes["vocab_size"], shape, generator=generator)


def make_targets(case: Case, tokens: torch.Tensor) -> torch.Tensor:
    """The next tokens, about one in eight of them ignored."""
    targets = tokens[:, 1:].clone()
    generator = torch.Generator().manual_seed(2000 + case.seed)
    targets[torch.rand(targets.shape, generator=generator) < 0.125] = IGNORED
    return targets


def document_rows(case: Case) -> dict[str, torch.Tensor]:
    """Documents of uneven length, down to one token: (B, S) first row, end row and position, rows counted
    through the whole batch."""
    generator = torch.Generator().manual_seed(3000 + case.seed)
    start, end, position = (torch.zeros(case.batch, case.sequence, dtype=torch.int64) for _ in range(3))
    for row in range(case.batch):
        cuts = torch.randperm(case.sequence - 1, generator=generator)[: row + 1] + 1
        edges = [0, 1 if row == 0 else int(cuts[0]), *map(int, cuts), case.sequence]
        edges = sorted(set(edges))
        for first, last in zip(edges, edges[1:]):
            start[row, first:last] = row * case.sequence + first
            end[row, first:last] = row * case.sequence + last
            position[row, first:last] = torch.arange(last - first)
    return {"document_start": start, "document_end": end, "position": position}


def block_mask(documents: dict[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """(B, 1, S, S) added to the scores: 0 where a token sees another, the least number where it does not."""
    start = documents["document_start"]
    sequence = start.shape[1]
    same = start[:, :, None] == start[:, None, :]
    causal = torch.ones(sequence, sequence, dtype=torch.bool).tril()
    return torch.zeros(start.shape[0], 1, sequence, sequence, dtype=dtype).masked_fill(
        ~(same & causal)[:, None], torch.finfo(dtype).min)


# --- computation ---------------------------------------------------------------------------------------------


def mean_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    at_least_single = logits.float() if logits.dtype == torch.bfloat16 else logits
    return torch.nn.functional.cross_entropy(at_least_single.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def numbers(tensor: torch.Tensor) -> np.ndarray:
    """A copy; bf16, which NumPy has not, as fp32."""
    detached = tensor.detach()
    return (detached.float() if detached.dtype == torch.bfloat16 else detached).numpy().copy()


def forward_backward(model: transformers.PreTrainedModel, tokens: torch.Tensor, targets: torch.Tensor,
                     documents: dict[str, torch.Tensor] | None = None) -> dict[str, np.ndarray]:
    """logits (B, S, V), the mean loss over valid targets, and its gradient of every parameter."""
    extra: dict[str, torch.Tensor] = {}
    if documents is not None:
        dtype = next(model.parameters()).dtype
        extra = {"position_ids": documents["position"], "attention_mask": block_mask(documents, dtype)}
    model.zero_grad()
    logits = model(input_ids=tokens, use_cache=False, **extra).logits
    loss = mean_loss(logits, targets)
    loss.backward()
    results = {"logits": numbers(logits), "loss": numbers(loss)}
    for name, weight in model.named_parameters():
        results[f"gradients/{name}"] = numbers(weight.grad)
    return results


def learning_rate(step: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to the minimum; step counts from 1."""
    high, low, warmup = (OPTIMIZER[k] for k in ("learning_rate", "min_learning_rate", "warmup_steps"))
    if step <= warmup:
        return high * step / warmup
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def make_optimizer(model: transformers.PreTrainedModel) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": OPTIMIZER["weight_decay"]}, {"params": norms, "weight_decay": 0.0}]
    betas = (OPTIMIZER["beta1"], OPTIMIZER["beta2"])
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=OPTIMIZER["epsilon"], foreach=False)


def train(model: transformers.PreTrainedModel, tokens: torch.Tensor) -> dict[str, np.ndarray]:
    """tokens: (steps, B, S + 1). The loss and the norm of its gradient before each step, and the last weights."""
    optimizer = make_optimizer(model)
    losses, norms, rates = [], [], []
    for step, batch in enumerate(tokens, start=1):
        rates.append(learning_rate(step, len(tokens)))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        optimizer.zero_grad()
        loss = mean_loss(model(input_ids=batch[:, :-1], use_cache=False).logits, batch[:, 1:])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER["grad_clip"]).item())
        optimizer.step()
        losses.append(loss.item())
    results = {"losses": np.array(losses), "gradient_norms": np.array(norms), "learning_rates": np.array(rates)}
    for name, weight in model.named_parameters():
        results[f"final_weights/{name}"] = weight.detach().numpy().copy()
    return results


# --- files ---------------------------------------------------------------------------------------------------


def relative_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """In the Euclidean norm, as tests/support/relative_error.hpp."""
    difference = np.linalg.norm(np.asarray(actual, np.float64).ravel() - np.asarray(expected).ravel())
    return float(difference / np.linalg.norm(np.asarray(expected, np.float64)))


def write(file: h5py.File, name: str, data: np.ndarray, **attributes: float) -> None:
    compression = dict(compression="gzip", compression_opts=9, shuffle=True) if np.ndim(data) > 0 else {}
    dataset = file.create_dataset(name, data=data, **compression)
    dataset.attrs.update(attributes)


def write_results(file: h5py.File, single: dict[str, np.ndarray], double: dict[str, np.ndarray],
                  prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in single.items():
        difference = relative_difference(value, double[name])
        write(file, prefix + name, value, relative_difference_to_fp64=difference)
        yield prefix + name, difference


def int32(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().astype(np.int32)


def make_pass(file: h5py.File, case: Case, model: Any, double: Any) -> Iterator[tuple[str, float]]:
    tokens = random_tokens(case, case.batch, case.sequence + 1)
    inputs, targets = tokens[:, :-1], make_targets(case, tokens)
    write(file, "input_ids", int32(inputs))
    write(file, "labels", int32(targets))
    yield from write_results(file, *(forward_backward(m, inputs, targets) for m in (model, double)))
    if case.packed:
        documents = document_rows(case)
        for name, rows in documents.items():
            write(file, f"packed/{name}", int32(rows))
        results = (forward_backward(m, inputs, targets, documents) for m in (model, double))
        yield from write_results(file, *results, prefix="packed/")


def make_steps(file: h5py.File, case: Case, model: Any, double: Any) -> Iterator[tuple[str, float]]:
    # Skewed towards low ids, so that there is something to learn and the gradient shrinks below the clipping norm.
    tokens = random_tokens(case, case.steps, case.batch, case.sequence + 1) ** 2 // case.sizes["vocab_size"]
    file.attrs.update(OPTIMIZER | {"steps": case.steps})
    write(file, "tokens", int32(tokens))
    initial = {name: weight.detach().double().numpy().copy() for name, weight in model.named_parameters()}
    single, double_results = train(model, tokens), train(double, tokens)
    yield from write_results(file, single, double_results)
    for name, start in initial.items():
        moved = [r[f"final_weights/{name}"] - start for r in (single, double_results)]
        file[f"final_weights/{name}"].attrs["relative_difference_of_change"] = relative_difference(*moved)
    clipped = (single["gradient_norms"] > OPTIMIZER["grad_clip"]).sum()
    assert 0 < clipped < case.steps, f"{clipped} of {case.steps} steps clip: change the case so that some do"


def make_file(path: pathlib.Path, case: Case) -> None:
    model = make_model(case)
    double = make_double(model)
    maker: Callable[..., Iterator[tuple[str, float]]] = make_steps if case.steps else make_pass
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:  # readable by HDF5 1.10
        file.attrs["config"] = config_text(model)
        file.attrs["description"] = case.description
        file.attrs["made_by"] = f"make_golden.py, torch {torch.__version__}, transformers {transformers.__version__}"
        for name, weight in model.named_parameters():
            write(file, f"weights/{name}", weight.detach().numpy())
        differences = dict(maker(file, case, model, double))
        worst = max(differences, key=differences.get)
        file.attrs["largest_relative_difference_to_fp64"] = differences[worst]
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, fp32 against fp64 at most {differences[worst]:.1e} ({worst})")


def print_bf16(case: Case) -> None:
    """How far the same model in bf16 is from fp32: the logits, the loss, and the gradient that differs most."""
    single = make_model(case)
    tokens = random_tokens(case, case.batch, case.sequence + 1)
    inputs, targets = tokens[:, :-1], make_targets(case, tokens)
    for documents in [None] + ([document_rows(case)] if case.packed else []):
        low, exact = (forward_backward(m, inputs, targets, documents)
                      for m in (copy.deepcopy(single).bfloat16(), single))
        differences = {name: relative_difference(low[name], exact[name]) for name in low}
        logits, loss = differences.pop("logits"), differences.pop("loss")
        worst = max(differences, key=differences.get)
        print(f"{case.name}{' packed' if documents else ''}: logits {logits:.4f}, loss {loss:.5f}, "
              f"gradients at most {differences[worst]:.4f} ({worst})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent,
                        help="folder of the files (default: the script's own)")
    parser.add_argument("--bf16", action="store_true", help="make nothing; print how far bf16 is from fp32")
    parser.add_argument("cases", nargs="*", help=f"which to make (default: all of {', '.join(c.name for c in CASES)})")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one order of summation
    for case in CASES:
        if arguments.cases and case.name not in arguments.cases:
            continue
        if arguments.bf16:
            if not case.steps:
                print_bf16(case)
        else:
            make_file(arguments.output / f"{case.name}.h5", case)


if __name__ == "__main__":
    main()
