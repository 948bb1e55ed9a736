#!/usr/bin/env python3
"""tools/score_predictions.py: what it refuses, and, where its libraries are, scores known beforehand."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "score_predictions.py"
LIBRARIES = all(importlib.util.find_spec(name) for name in ("nltk", "jieba", "rouge_chinese"))


class ScorePredictions(unittest.TestCase):
    def score(self, text: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "predictions.jsonl"
            path.write_text(text)
            environment = os.environ | {"PYTHONWARNINGS": "ignore"}
            return subprocess.run([sys.executable, TOOL, path], capture_output=True, text=True, env=environment)

    def test_what_is_refused(self) -> None:
        for text, place in (("", "predictions.jsonl"), ("{}\n", ":1:"), ('{"predict": 1, "label": "a"}', ":1:"),
                            ("[" * 100_000, ":1:"), ('{"predict": "a", "label": "a"}\nno JSON', ":2:")):
            result = self.score(text)
            self.assertEqual(result.returncode, 3, result)
            self.assertIn("error:", result.stderr)
            self.assertIn(place, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1)

    @unittest.skipUnless(LIBRARIES, "nltk, jieba or rouge-chinese is not installed")
    def test_known_scores(self) -> None:
        # All right, nothing right, nothing said: every score is the share of the first, and of BLEU a little more,
        # since smoothing gives no n-gram at all something.
        pairs = [("the cat sat on a mat", "the cat sat on a mat"), ("zzz", "the cat"), ("", "the cat")]
        result = self.score("".join(json.dumps({"predict": p, "label": l}) + "\n" for p, l in pairs))
        self.assertEqual(result.returncode, 0, result)
        scores = {name: float(value) for name, value in (line.split() for line in result.stdout.splitlines()[1:])}
        for name in ("rouge-1", "rouge-2", "rouge-l"):
            self.assertAlmostEqual(scores[name], 100 / 3, places=2)
        self.assertGreaterEqual(scores["bleu-4"], 33.33)
        self.assertLess(scores["bleu-4"], 40)


if __name__ == "__main__":
    unittest.main()
