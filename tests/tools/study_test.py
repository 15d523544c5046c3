"""What docs/PROTOCOL.md says of intervals and of what is run, held against experiments/study."""

import importlib.machinery
import importlib.util
import math
import pathlib
import sys
import tomllib
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "experiments"))

try:
    import numpy
except ImportError:
    numpy = None


def load(name):
    loader = importlib.machinery.SourceFileLoader(f"{name}_script", str(SOURCE / "experiments" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


study = load("study")


class Plan(unittest.TestCase):
    def test_every_task_names_a_recipe_and_kinds_with_matched_sizes(self):
        for name, task in study.PROTOCOL["tasks"].items():
            recipe = tomllib.loads((SOURCE / "recipes" / f"{task['recipe']}.toml").read_text())
            self.assertEqual(task["lr"], recipe["optim"]["lr"], name)
            self.assertLessEqual({"seqboat", "mega-chunk", "seqboat-full", "seqboat-stride", "ema", "attention"}, set(task["kinds"]), name)
            for kind in task["kinds"]:
                same_network = kind in ("seqboat", "seqboat-full", "seqboat-stride")
                self.assertEqual(kind in task["match"], not same_network, f"{name} {kind}")

    def test_runs_have_names_of_their_own_and_wait_for_what_they_need(self):
        runs = list(study.plan(study.PROTOCOL["tasks"]))
        self.assertEqual(len({run.id for run in runs}), len(runs))
        task = study.PROTOCOL["tasks"]["listops"]
        seqboat = study.Run("listops", "seqboat", "grid", 100, 0.5)
        self.assertEqual(seqboat.id, "listops/seqboat/grid-0.5")
        self.assertEqual(seqboat.steps(), round(task["updates"] / 4))
        keys = seqboat.all_settings(1000)
        self.assertEqual((keys["optim.lr"], keys["optim.warmup"], keys["optim.total_steps"], keys["train.seed"]), (0.002, 50, 1000, 100))

    def test_items_are_short(self):
        table = "item\tcount\tcorrect\tloss\n0\t1\t1\t.5\n1\t1\t0\t2\n"
        self.assertEqual(study.short_items(table, "accuracy"), "1 1\n0 1\n")
        table = "item\tcount\tcorrect\tloss\n" + "".join(f"{i}\t2000\t0\t1.5\n" for i in range(4)) + "4\t7\t0\t1\n"
        self.assertEqual(study.short_items(table, "bits-per-byte"), "6000 4.500000\n2007 2.500000\n")


@unittest.skipIf(numpy is None, "no numpy")
class Bootstrap(unittest.TestCase):
    def setUp(self):
        import study_tables

        self.tables, self.random = study_tables, numpy.random.default_rng(3)

    def plain(self, gain, weight, draws):
        """The definition, draw by draw."""
        values = []
        for _ in range(draws):
            items, seeds = self.random.integers(0, gain.shape[1], gain.shape[1]), self.random.integers(0, 3, 3)
            values.append(gain[seeds][:, items].sum(1).mean() / weight[items].sum())
        return numpy.percentile(values, [2.5, 97.5])

    def test_accuracy_is_the_definition(self):
        n, share = 300, (0.8, 0.75, 0.7)
        pairs = [tuple(numpy.c_[self.random.random(n) < p, numpy.ones(n)].astype(float) for p in (best, 0.7)) for best in share]
        mean, own, low, high = self.tables.bootstrap(pairs, "accuracy", 10000)
        gain = numpy.array([a[:, 0] - b[:, 0] for a, b in pairs])
        self.assertAlmostEqual(mean, gain.mean())
        numpy.testing.assert_allclose(own, gain.mean(1))
        numpy.testing.assert_allclose([low, high], self.plain(gain, numpy.ones(n), 6000), atol=0.006)

    def test_bits_are_the_definition_and_fewer_are_better(self):
        n = 120
        count = self.random.integers(3000, 4097, n).astype(float)
        pairs = [tuple(numpy.c_[count, count * (nats + 0.2 * self.random.standard_normal(n))] for nats in (1.3, 1.35)) for _ in range(3)]
        mean, own, low, high = self.tables.bootstrap(pairs, "bits-per-byte", 10000)
        gain = numpy.array([(b[:, 1] - a[:, 1]) / math.log(2) for a, b in pairs])
        self.assertGreater(mean, 0)
        self.assertAlmostEqual(mean, (gain.sum(1) / count.sum()).mean())
        numpy.testing.assert_allclose([low, high], self.plain(gain, count, 6000), atol=0.004)

    def test_words(self):
        word = lambda own, low, high: self.tables.verdict(numpy.array(own), low, high, 0.01)
        self.assertEqual(word([0.01, 0.02, 0.03], 0.001, 0.04), "better")
        self.assertEqual(word([-0.001, 0.02, 0.03], 0.001, 0.04), "not worse")
        self.assertEqual(word([-0.02, 0.02, 0.03], 0.001, 0.04), "not shown")
        self.assertEqual(word([-0.005, 0.0, 0.0], -0.009, 0.04), "not worse")
        self.assertEqual(word([0.0, 0.0, 0.0], -0.011, 0.04), "not shown")
        self.assertEqual(word([-0.01, -0.02, -0.03], -0.04, -0.001), "worse")


if __name__ == "__main__":
    unittest.main()
