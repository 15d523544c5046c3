"""seqboat bench"""

import math
import shutil
import signal
import subprocess
import unittest

from support import BINARY, HAS_TRAIN, TINY_LISTOPS, CliTest

KEYS = ["mode", "recipe", "batch", "length", "tokens", "threads", "simd", "params", "activation_rate", "forced_rate", "tokens_per_s", "ms", "steps",
        "limit_ms", "limit_fraction", "reachable_ms", "reachable_fraction", "reachable", "peak_rss_bytes", "added_rss_bytes", "machine"]
RATES = ["gemm_gflops", "fma_gflops", "triad_l2_gbs", "triad_64mb_gbs", "triad_dram_gbs"]
PARTS = ["scan", "attention", "products", "memory"]
PHASES = ["ema", "router", "compress", "products", "attention", "extract", "norm", "elementwise", "dropout", "embedding", "head", "optimizer", "other"]

# Small enough that the steps take a few milliseconds; the machine's own rates take two seconds all the same.
TINY = {"model.d_model": 16, "model.d_hidden": 24, "model.d_attn": 8, "model.d_state": 4, "model.n_layers": 2, "model.window_size": 8,
        "data.length": 100}


def settings(values):
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch")
class Bench(CliTest):
    def bench(self, recipe, *more, values=None, threads=2):
        return self.json_of("bench", "--recipe", recipe, "--steps", 3, "--threads", threads, "--quiet", *settings(TINY if values is None else values), *more)

    def check_numbers(self, got):
        self.assertEqual(set(got["machine"]), set(RATES))
        self.assertEqual(list(got["reachable"]), PARTS)
        for name, value in [*got["machine"].items(), *((key, got[key]) for key in ("tokens_per_s", "limit_ms", "reachable_ms"))]:
            self.assertTrue(value > 0 and math.isfinite(value), name)
        self.assertLessEqual(got["ms"]["min"], got["ms"]["median"])
        self.assertAlmostEqual(got["tokens_per_s"], 1e3 * got["tokens"] / got["ms"]["min"], delta=1e-6 * got["tokens_per_s"])
        self.assertAlmostEqual(got["limit_fraction"], got["limit_ms"] / got["ms"]["min"])
        self.assertAlmostEqual(got["reachable_fraction"], got["reachable_ms"] / got["ms"]["min"])
        self.assertAlmostEqual(got["reachable_ms"], sum(got["reachable"].values()))
        # What the machine does at best is more than what it does with the products and the memory of so small a model.
        self.assertLess(got["limit_ms"], got["reachable_ms"])
        if got["peak_rss_bytes"] is not None:
            self.assertGreater(got["peak_rss_bytes"], got["added_rss_bytes"])
            self.assertGreaterEqual(got["added_rss_bytes"], 0)

    def test_training_step_at_a_forced_rate(self):
        got = self.bench("bench/listops", "--activation-rate", 0.25, "--batch", 20, "--phases")
        self.assertEqual(list(got), [*KEYS, "phases"])
        self.check_numbers(got)
        self.assertEqual((got["mode"], got["recipe"], got["batch"], got["length"], got["tokens"], got["threads"], got["steps"], got["forced_rate"]),
                         ("train", "bench/listops", 20, 100, 2000, 2, 3, 0.25))
        rates = got["activation_rate"]
        self.assertEqual(len(rates), 2)
        for rate in rates:
            self.assertAlmostEqual(rate, 0.25, delta=5 * (0.25 * 0.75 / 2000) ** 0.5)
        self.assertNotEqual(rates[0], rates[1])
        self.assertEqual(list(got["phases"]), PHASES)
        for name in ("ema", "router", "compress", "products", "attention", "extract", "norm", "elementwise", "dropout", "embedding", "head", "optimizer"):
            self.assertGreater(got["phases"][name], 0, name)
        # They are those of one timed step.
        self.assertGreater(sum(got["phases"].values()), 0.99 * got["ms"]["min"])
        # The same tokens are activated every time.
        self.assertEqual(self.bench("bench/listops", "--activation-rate", 0.25, "--batch", 20, threads=1)["activation_rate"], rates)

    def test_nothing_and_everything(self):
        none = self.bench("bench/text", "--activation-rate", 0, "--mode", "forward")
        self.check_numbers(none)
        self.assertEqual((none["activation_rate"], none["reachable"]["attention"]), ([0, 0], 0))
        full = self.bench("bench/text", "--activation-rate", 1, "--mode", "forward")
        self.assertEqual(full["activation_rate"], [1, 1])
        self.assertGreater(full["reachable"]["attention"], 0)

    def test_routers_decide(self):
        got = self.bench("bench/listops")
        self.assertEqual((got["batch"], got["forced_rate"]), (8, None))
        self.assertTrue(all(0 <= rate <= 1 for rate in got["activation_rate"]))
        everything = self.bench("bench/listops", "--mode", "forward", values={**TINY, "model.layer": "seqboat-full"})
        self.assertEqual((everything["mode"], everything["activation_rate"]), ("forward", [1, 1]))

    def test_every_recipe_of_bench(self):
        tiny = {"bench/image": {}, "bench/speech": {}, "bench/lm": {"model.truncation": 40}}
        for recipe, more in tiny.items():
            for mode in ("train", "forward"):
                got = self.bench(recipe, "--mode", mode, "--activation-rate", 0.5, values={**TINY, **more})
                self.check_numbers(got)
                self.assertEqual((got["mode"], got["length"]), (mode, 100))

    def test_pairs(self):
        values = {**TINY, "task.kind": "retrieval", "task.nli": "true", "model.d_attn": 8}
        got = self.bench("bench/text", "--activation-rate", 0.5, "--batch", 3, values=values)
        self.assertEqual((got["batch"], got["tokens"]), (3, 600))
        for rate in got["activation_rate"]:
            self.assertAlmostEqual(rate, 0.5, delta=0.2)

    def test_real_lengths(self):
        got = self.bench("lra/listops", "--batches", "listops", "--length", 60, values=TINY_LISTOPS)
        self.assertEqual(list(got)[-2:], ["full_batch", "ratio_to_full"])
        self.check_numbers(got)
        full = got["full_batch"]
        self.assertEqual(full["tokens"], got["tokens"])
        self.assertEqual(full["batch"], -(-got["tokens"] // 60))
        self.assertLessEqual(got["tokens"], 8 * 60)
        self.assertGreater(got["tokens"], 7 * 60)
        self.assertLess(got["length"], TINY_LISTOPS["data.max_length"])
        self.assertAlmostEqual(got["ratio_to_full"], got["ms"]["min"] / full["ms"]["min"])

    def test_a_trained_model_beside_itself_with_everything_activated(self):
        run = self.dir / "run"
        self.expect(0, "train", "lra/listops", "--out", run, "--data", self.dir / "data", "--quiet", *settings({**TINY_LISTOPS, "train.batch_size": 5}))
        weights = (run / "model" / "model.safetensors").read_bytes()
        tested = self.json_of("eval", run, "--examples", 5)
        for mode in ("train", "forward"):
            got = self.json_of("bench", "--model", run, "--mode", mode, "--steps", 3, "--quiet")
            self.assertEqual(list(got), [*KEYS, "model", "everything_activated", "gain"])
            self.check_numbers(got)
            self.assertEqual((got["recipe"], got["model"], got["mode"], got["batch"], got["forced_rate"]), (None, str(run), mode, 5, None))
            if mode == "forward":  # the test split's first sequences, activated as they are where the model is tested; dropout changes that
                for rate, expected in zip(got["activation_rate"], tested["activation_rate"], strict=True):
                    self.assertAlmostEqual(rate, expected)
            everything = got["everything_activated"]
            self.assertEqual(list(everything), ["ms", "tokens_per_s", "added_rss_bytes"])
            self.assertAlmostEqual(got["gain"], everything["ms"]["min"] / got["ms"]["min"])
        self.assertEqual((run / "model" / "model.safetensors").read_bytes(), weights)
        # A bare folder and a batch of one's own; a rate in place of the routers'.
        bare = self.dir / "bare"
        shutil.copytree(run / "model", bare)
        forced = self.json_of("bench", "--model", bare, "--data", self.dir / "data", "--batch", 3, "--activation-rate", 0, "--steps", 3, "--threads", 1, "--quiet")
        self.assertEqual((forced["batch"], forced["forced_rate"], forced["threads"], set(forced["activation_rate"])), (3, 0, 1, {0}))
        self.expect(4, "bench", "--model", bare, "--data", self.dir / "nowhere", parts=["nowhere", "no such file or folder"])
        self.assertFalse((self.dir / "nowhere").exists())
        self.expect(2, "bench", "--model", bare, parts=["bare model folder", "--data"])
        self.assertRegex(self.expect(0, "bench", "--model", run, "--steps", 3, "--quiet").stdout, r"(?m)^everything +[0-9.]+ ms where every token is activated, ")
        self.expect(2, "bench", "--model", run, "--length", 40, parts=["--length", "--model"])
        self.expect(2, "bench", "--model", run, "--recipe", "bench/listops", parts=["--recipe", "--model"])
        self.expect(2, "bench", "--model", run, "--set", "model.d_model=8", parts=["model.d_model", "config of their own"])
        (self.dir / "empty.tsv").touch()
        self.expect(4, "bench", "--model", run, "--data", self.dir / "empty.tsv", parts=["empty.tsv"])

    def test_a_trained_model_without_router_has_no_other_side(self):
        run = self.dir / "run"
        self.expect(0, "train", "lra/listops", "--out", run, "--data", self.dir / "data", "--quiet",
                    *settings({**TINY_LISTOPS, "model.layer": "seqboat-full"}))
        got = self.json_of("bench", "--model", run, "--steps", 3, "--quiet")
        self.assertEqual(list(got), [*KEYS, "model"])
        self.expect(2, "bench", "--model", run, "--activation-rate", 0.5, parts=["--activation-rate", "nobody decides"])

    def test_text_for_people(self):
        done = self.expect(0, "bench", "--recipe", "bench/listops", "--steps", 3, "--phases", "--quiet", *settings(TINY))
        self.assertEqual(done.stderr, "")
        for word in ("recipe", "batch", "activated", "machine", "step", "limit", "reachable", "memory", "phase", *PHASES):
            self.assertRegex(done.stdout, rf"(?m)^{word} ")
        self.assertFalse(list(self.dir.rglob("*")), "bench writes no file")

    def test_it_can_be_interrupted(self):
        process = subprocess.Popen([BINARY, "bench", "--recipe", "bench/listops", "--steps", "1000000", *settings(TINY)], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if "measuring" in line:
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, output), (130, ""))

    def test_what_the_recipe_cannot_do(self):
        recipe = ("bench", "--recipe", "bench/listops")
        self.expect(2, *recipe, "--length", 4096, parts=["--length", "at most 2048", "found 4096", "--set model.max_positions=4096"])
        self.expect(2, *recipe, "--set", "model.layer=seqboat-full", "--activation-rate", 0.5, parts=["--activation-rate", "nobody decides"])
        self.expect(2, "bench", "--recipe", "bench/lm", "--batches", "listops", parts=["--batches listops", "classifier"])
        self.expect(2, "bench", "--recipe", "bench/image", "--batches", "listops", parts=["--batches listops", "classifier"])
        self.expect(7, *recipe, "--batch", 1000000000, parts=["out of memory", "GiB"])
        self.expect(7, *recipe, "--batch", 1000000000, "--mode", "forward", parts=["out of memory", "GiB"])
        self.expect(3, "train", "bench/listops", "--out", self.dir / "run", parts=["synthetic", "seqboat bench"])
        self.assertFalse((self.dir / "run").exists())


class WrongUsage(CliTest):
    def test_refused(self):
        recipe = ("bench", "--recipe", "bench/listops")
        self.expect(2, "bench", parts=["--recipe or --model is required"])
        self.expect(5, "bench", "--model", self.dir / "none", parts=["none"])
        self.expect(2, *recipe, "--data", "x.tsv", parts=["--data", "--model"])
        self.expect(2, "bench", "--recipe", "bench/listop", parts=["did you mean bench/listops?"])
        self.expect(2, "bench", "--recipe", self.dir / "none.toml", parts=["no such recipe file"])
        for mode in ("decode", "prefill"):
            self.expect(2, *recipe, "--mode", mode, parts=["bidirectional", "model.causal=true"])
        self.expect(2, *recipe, "--mode", "backward", parts=["--mode", "backward", "train", "forward"])
        for rate in ("-0.1", "1.5", "nan", "much"):
            self.expect(2, *recipe, f"--activation-rate={rate}", parts=["--activation-rate", "from 0 to 1", rate])
        for option in ("--batch", "--length", "--steps"):
            for value in ("0", "-1", "x"):
                self.expect(2, *recipe, f"{option}={value}", parts=[option, value])
        self.expect(2, *recipe, "--simd", "", parts=["--simd", "expected a name"])
        if HAS_TRAIN:
            self.expect(2, *recipe, "--simd", "avx9", parts=["SIMD target", "found \"avx9\""])
        self.expect(2, *recipe, "--batches", "bytes", parts=["--batches", "bytes", "listops"])
        self.expect(2, *recipe, "--phase", parts=["did you mean --phases?"])
        self.expect(3, *recipe, "--set", "model.d_modle=3", parts=["did you mean model.d_model?"])
        self.expect(3, *recipe, "--set", "data.length=0", parts=["data.length"])
        self.expect(3, *recipe, "--set", "task.classes=0", parts=["task.classes"])
        self.expect(3, *recipe, "--set", "model.vocab_size=0", parts=["model.vocab_size"])


if __name__ == "__main__":
    unittest.main()
