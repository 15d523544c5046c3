"""Short ListOps, learnt: the quick recipe with three seeds, a fixed number of steps, held to the shortcut ladder of its own data."""

import unittest

from support import HAS_TRAIN, CliTest

SEEDS = (1, 2, 3)
MINIMUM = 0.50  # the root-operator rule gets .37 of these data, one level .57


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
class ShortListOps(CliTest):
    timeout = 1800

    def test_three_seeds_beat_the_root_operator_rule(self):
        for seed in SEEDS:
            run = self.dir / f"seed{seed}"
            self.expect(0, "train", "lra/listops-quick", "--out", run, "--set", f"train.seed={seed}", "--quiet")
            value = self.json_of("eval", run)
            root_operator = value["shortcut_ladder"]["root_operator"]
            print(f"seed {seed}: accuracy {value['value']:.4f}, root-operator rule {root_operator:.4f}", flush=True)
            self.assertGreaterEqual(value["value"], MINIMUM, f"seed {seed}")
            self.assertGreater(value["ci95"][0], root_operator, f"seed {seed}")


if __name__ == "__main__":
    unittest.main()
