"""What eval says of activation: rates by class and position, spans, FLOPs, and what forced decisions make of a model."""

import json
import unittest

from support import HAS_TRAIN, TINY_LISTOPS, CliTest

WORDS = ["none", "all", "random", "inverted"]


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
class Evaluation(CliTest):
    def train(self, name, **changes):
        settings = {**TINY_LISTOPS, "train.steps": 20, "optim.total_steps": 20, "train.save_every": 20, **changes}
        words = ["train", "lra/listops-short", "--out", self.dir / name, "--threads", 1, "--quiet"]
        for key, value in settings.items():
            words += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
        self.expect(0, *words)
        return self.dir / name

    def assert_close(self, got, want, what=""):
        self.assertEqual(len(got), len(want), what)
        for a, b in zip(got, want):
            self.assertAlmostEqual(a, b, places=12, msg=what)

    def test_activation_and_forced_decisions(self):
        run = self.train("run")
        self.check_activation(run)
        self.check_forced_decisions(run)
        # Where nobody decides nothing can be forced.
        run = self.train("mega", **{"model.layer": "mega-chunk", "train.steps": 1})
        value = self.json_of("eval", run)
        self.assertEqual((value["activation_rate"], value["flops"]["share"]), ([1, 1], 1))
        self.expect(2, "eval", run, "--force", "all", parts=["--force all", '"mega-chunk"', "nobody decides"])
        self.expect(2, "eval", run, "--interventions", parts=["--interventions", '"mega-chunk"'])

    def check_forced_decisions(self, run):
        learned = self.json_of("eval", run)
        self.assertIsNone(learned["intervention"])
        self.assertTrue(all(0 < rate < 1 for rate in learned["activation_rate"]), learned["activation_rate"])
        forced = {word: self.json_of("eval", run, "--force", word, "--seed", 3) for word in WORDS}
        for word, value in forced.items():
            self.assertEqual((value["intervention"]["decisions"], value["intervention"]["seed"]), (word, 3))
            beside = value["intervention"]["learned"]
            for key in ("value", "ci95", "loss", "activation_rate", "attention_span"):
                self.assertEqual(beside[key], learned[key], f"{word} {key}")
            self.assertEqual(beside["flops"]["spent"], learned["flops"]["spent"])
            self.assertEqual(value["flops"]["dense"], learned["flops"]["dense"])
            self.assertNotEqual(value["loss"], learned["loss"])
        self.assertEqual(forced["none"]["activation_rate"], [0, 0])
        self.assertEqual(forced["none"]["attention_span"], [0, 0])
        self.assertEqual(forced["all"]["activation_rate"], [1, 1])
        self.assertEqual(forced["all"]["flops"]["share"], 1)
        self.assertEqual(forced["all"]["flops"]["spent"], forced["all"]["flops"]["dense"])
        self.assertEqual(forced["random"]["activation_rate"], learned["activation_rate"])  # as many of every sequence, and so the cost
        self.assertEqual(forced["random"]["flops"], learned["flops"])
        self.assert_close(forced["inverted"]["activation_rate"], [1 - rate for rate in learned["activation_rate"]])
        self.assertLess(forced["none"]["flops"]["spent"], learned["flops"]["spent"])

        # The same seed gives the same decisions, at any number of threads; another one others.
        again = self.json_of("eval", run, "--force", "random", "--seed", 3, "--threads", 1)
        self.assertEqual(again, forced["random"])
        self.assertNotEqual(self.json_of("eval", run, "--force", "random", "--seed", 4)["loss"], again["loss"])

        # All of them in one table are each by itself.
        table = self.json_of("eval", run, "--interventions", "--seed", 3)
        self.assertEqual(table["interventions"]["seed"], 3)
        results = {one["decisions"]: one for one in table["interventions"]["results"]}
        self.assertEqual(list(results), ["learned", *WORDS])
        for word in WORDS:
            for key in ("value", "ci95", "loss", "activation_rate", "attention_span"):
                self.assertEqual(results[word][key], forced[word][key], f"{word} {key}")
        for key in ("value", "loss", "activation_rate", "activation"):
            self.assertEqual(table[key], learned[key])
        text = self.expect(0, "eval", run, "--interventions").stdout
        for word in ["learned", *WORDS]:
            self.assertRegex(text, rf"(?m)^  {word} +\d+\.\d\d % +\d\.\d{{4}} +\d+\.\d %  [01]\.\d\d [01]\.\d\d$")
        self.assertIn("Decisions forced (all)", self.expect(0, "eval", run, "--force", "all").stdout)
        self.expect(2, "eval", run, "--force", "some", parts=["--force", "some"])
        self.expect(2, "eval", run, "--force", "all", "--interventions", parts=["--interventions", "--force"])
        self.expect(2, "eval", run, "--force", "all", "--seed", -1, parts=["--seed"])

    def check_activation(self, run):
        plain = self.json_of("eval", run)
        value = self.json_of("eval", run, "--weighted-span")
        self.assertEqual(len(value["activation"]), 2)
        for layer, one in enumerate(value["activation"]):
            self.assertEqual(list(one["modules"]), ["attention"])
            module = one["modules"]["attention"]
            self.assertEqual(module["rate"], value["activation_rate"][layer])
            self.assertEqual(module["span"], value["attention_span"][layer])
            self.assertTrue(0 < module["weighted_span"] < 40, module)
            self.assertIsNone(plain["activation"][layer]["modules"]["attention"]["weighted_span"])
            self.assertTrue(0 <= module["rate_of_sequences"]["mean"] <= 1)
            self.assertGreater(module["rate_of_sequences"]["deviation"], 0)
            self.assertGreaterEqual(module["gaps"]["mean"], 1)
            self.assertGreaterEqual(module["gaps"]["max"], module["gaps"]["median"])
            tokens = None
            for key in ("by_position", "by_tenth", "by_class", "by_depth"):
                rates = module[key].values()
                counted = sum(rate["tokens"] for rate in rates)
                tokens = tokens or counted
                self.assertEqual(counted, tokens, key)
                self.assertAlmostEqual(sum(rate["tokens"] * rate["rate"] for rate in rates) / tokens, module["rate"], places=12, msg=key)
            self.assertEqual(module["by_position"]["0"]["tokens"], 60)
            self.assertEqual(module["by_depth"]["1"]["tokens"], 120)  # root operators and their brackets
            self.assertLessEqual({"digit", "close"}, set(module["by_class"]))
            self.assertEqual(len(module["by_tenth"]), 10)
        flops = value["flops"]
        self.assertAlmostEqual(sum(layer["spent"] for layer in flops["per_layer"]) + flops["outside_layers"], flops["spent"], delta=1)
        self.assertAlmostEqual(flops["share"], flops["spent"] / flops["dense"], places=12)
        self.assertTrue(0 < flops["share"] < 1)

        text = self.expect(0, "eval", run).stdout
        self.assertRegex(text, r"(?m)^FLOPs +\d+\.\d+ [kM] a token, \d+\.\d % of dense")
        self.assertNotIn("by class", text)
        text = self.expect(0, "eval", run, "--activations").stdout
        for part in ("by class", "by depth", "by position", "by tenth", "90-100 %", "gaps", "weighted span"):
            self.assertIn(part, text)


if __name__ == "__main__":
    unittest.main()
