#!/usr/bin/env python3
"""BLEU-4 and ROUGE of predictions, as LLaMA-Factory's predict step computes them.

    llama3d generate --data FILE.json --output predictions.jsonl ...
    tools/score_predictions.py predictions.jsonl

Reads JSON lines with "predict" and "label". BLEU-4 is NLTK's sentence_bleu over characters with smoothing method 3;
ROUGE-1, ROUGE-2 and ROUGE-L are the F scores of rouge-chinese over jieba's words. All in percent, the mean over the
lines. Needs the packages nltk, jieba and rouge-chinese of PyPI.
"""

import argparse
import json
import pathlib
import statistics
import sys

ROUGE = ("rouge-1", "rouge-2", "rouge-l")


def fail(text: str) -> None:
    print(f"score_predictions.py: error: {text}", file=sys.stderr)
    sys.exit(3)


def read_pairs(path: pathlib.Path) -> list[tuple[str, str]]:
    """The prediction and the label of every line."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path}: can't be read ({error}); give the file that llama3d generate --output wrote")
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            pair = (record["predict"], record["label"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            fail(f"{path}:{number}: no JSON object with \"predict\" and \"label\" ({error!r})")
        if not all(isinstance(text, str) for text in pair):
            fail(f"{path}:{number}: \"predict\" and \"label\" must be strings")
        pairs.append(pair)
    if not pairs:
        fail(f"{path}: holds no predictions")
    return pairs


class Scorer:
    def __init__(self) -> None:
        try:
            import jieba
            from nltk.translate import bleu_score
            from rouge_chinese import Rouge
        except ImportError as error:
            fail(f"{error}; pip install nltk jieba rouge-chinese")
        jieba.setLogLevel("ERROR")
        self.cut = jieba.cut
        self.rouge = Rouge()
        self.sentence_bleu = bleu_score.sentence_bleu
        self.smoothing = bleu_score.SmoothingFunction().method3

    def score(self, predict: str, label: str) -> dict[str, float]:
        hypothesis, reference = (" ".join(self.cut(text)) for text in (predict, label))
        scores = dict.fromkeys(ROUGE, 0.0)
        if hypothesis.split() and reference.split():
            scores = {name: value["f"] for name, value in self.rouge.get_scores(hypothesis, reference)[0].items()}
        scores["bleu-4"] = self.sentence_bleu([list(label)], list(predict), smoothing_function=self.smoothing)
        # Rounded line by line, so that the means have LLaMA-Factory's last digits.
        return {name: round(value * 100, 4) for name, value in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=pathlib.Path, help="JSON lines with predict and label")
    path = parser.parse_args().predictions
    pairs = read_pairs(path)
    scorer = Scorer()
    scores = [scorer.score(*pair) for pair in pairs]
    print(f"{len(pairs)} predictions")
    for name in ("bleu-4", *ROUGE):
        print(f"{name:8}{statistics.fmean(score[name] for score in scores):9.4f}")


if __name__ == "__main__":
    main()
