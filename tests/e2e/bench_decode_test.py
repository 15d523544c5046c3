"""seqboat bench --mode decode and prefill: the streaming runtime's, in every build."""

import unittest

from support import CliTest, random_model

KEYS = ["mode", "recipe", "batch", "length", "threads", "simd", "params", "activation_rate", "forced_rate", "tokens_per_s", "ms", "steps", "us_per_token", "context",
        "state_bytes", "type", "ring", "weight_bytes", "workspace_bytes", "peak_rss_bytes", "added_rss_bytes"]
TINY = {"model.d_model": 16, "model.d_hidden": 24, "model.d_attn": 8, "model.d_state": 4, "model.n_layers": 2, "model.window_size": 8}


def settings(values):
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


class BenchDecode(CliTest):
    def bench(self, mode, *more, **changes):
        return self.json_of("bench", "--recipe", "bench/lm", "--mode", mode, "--quiet", *settings({**TINY, **changes}), *more)

    def check(self, got, mode):
        self.assertEqual(list(got), [key for key in KEYS if mode == "decode" or key != "us_per_token"])
        self.assertEqual(got["mode"], mode)
        self.assertLessEqual(got["ms"]["min"], 1.005 * got["ms"]["median"])
        self.assertGreater(got["tokens_per_s"], 0)
        self.assertGreater(got["state_bytes"], 0)
        if got["peak_rss_bytes"] is not None:
            self.assertGreater(got["peak_rss_bytes"], got["added_rss_bytes"])

    def test_decode(self):
        got = self.bench("decode", "--steps", 300, "--threads", 1, "--context", 500)
        self.check(got, "decode")
        self.assertEqual((got["recipe"], got["batch"], got["length"], got["steps"], got["threads"], got["context"], got["type"], got["ring"], got["forced_rate"]),
                         ("bench/lm", 1, 300, 300, 1, 500, "float32", "float32", None))
        self.assertLessEqual(got["us_per_token"]["p50"], got["us_per_token"]["p99"])
        self.assertAlmostEqual(got["tokens_per_s"] * got["us_per_token"]["p50"], 1e6, delta=1)
        self.assertTrue(all(0 <= rate <= 1 for rate in got["activation_rate"]))
        # A state has one size for ever; a ring in bf16 is smaller, and so are weights.
        later = self.bench("decode", "--steps", 20, "--context", 3000, "--ring", "bf16", "--type", "int8")
        self.assertEqual((later["ring"], later["type"]), ("bf16", "int8"))
        self.assertLess(later["state_bytes"], got["state_bytes"])
        self.assertLess(later["weight_bytes"], got["weight_bytes"])
        self.assertEqual(self.bench("decode", "--length", 20, "--context", 3000)["state_bytes"], got["state_bytes"])

    def test_streams_and_forced_rates(self):
        got = self.bench("decode", "--steps", 400, "--streams", 5, "--activation-rate", 0.25)
        self.check(got, "decode")
        self.assertEqual((got["batch"], got["forced_rate"]), (5, 0.25))
        for rate in got["activation_rate"]:
            self.assertAlmostEqual(rate, 0.25, delta=5 * (0.25 * 0.75 / 2000) ** 0.5)
        self.assertNotEqual(*got["activation_rate"])
        self.assertEqual(self.bench("decode", "--steps", 400, "--batch", 5, "--activation-rate", 0.25, "--threads", 1)["activation_rate"], got["activation_rate"])
        for rate in (0, 1):
            self.assertEqual(self.bench("decode", "--steps", 10, "--activation-rate", rate)["activation_rate"], [rate, rate])

    def test_prefill(self):
        got = self.bench("prefill", "--length", 700, "--steps", 3, "--context", 10)
        self.check(got, "prefill")
        self.assertEqual((got["length"], got["steps"], got["context"]), (700, 3, 10))
        self.assertAlmostEqual(got["tokens_per_s"], 1e3 * 700 / got["ms"]["min"], delta=1e-6 * got["tokens_per_s"])
        forced = self.bench("prefill", "--length", 700, "--steps", 2, "--streams", 3, "--activation-rate", 0.5)
        for rate in forced["activation_rate"]:
            self.assertAlmostEqual(rate, 0.5, delta=5 * (0.25 / 2100) ** 0.5)

    def test_attention_without_a_window(self):
        got = self.bench("decode", "--steps", 30, "--context", 50, **{"model.window_size": 0})
        self.assertEqual((got["steps"], got["context"]), (30, 50))
        self.check(self.bench("prefill", "--length", 100, "--steps", 2, **{"model.window_size": 0}), "prefill")
        mega = {"model.layer": "mega", "model.position": "simple", "model.max_positions": 64}
        self.assertEqual(self.bench("decode", "--context", 30, **mega)["steps"], 31)
        self.expect(2, "bench", "--recipe", "bench/lm", "--mode", "decode", *settings({**TINY, **mega}), parts=["--context 1024", "64 apart", "model.max_positions"])

    def test_a_model_of_its_own(self):
        random_model(self.dir / "m", task="classification", classes=3, input="real", channels=5, vocab_size=0)
        got = self.json_of("bench", "--model", self.dir / "m", "--mode", "decode", "--steps", 50, "--quiet")
        self.assertEqual(list(got), [*KEYS, "model"])
        self.assertEqual((got["recipe"], got["model"], got["steps"]), (None, str(self.dir / "m"), 50))
        self.check(self.json_of("bench", "--recipe", "bench/lm", "--mode", "decode", "--steps", 5, "--quiet", "--simd", got["simd"], *settings(TINY)), "decode")
        text = self.expect(0, "bench", "--model", self.dir / "m", "--mode", "prefill", "--length", 20, "--steps", 2).stdout
        self.assertRegex(text, r"(?m)^prefill +[0-9.]+ ms for 20 tokens")

    def test_what_a_user_gets_wrong(self):
        self.expect(2, "bench", "--recipe", "bench/listops", "--mode", "decode", parts=["bidirectional", "model.causal=true"])
        self.expect(2, "bench", "--recipe", "bench/lm", "--mode", "decode", "--phases", parts=["--phases", "train or forward"])
        self.expect(2, "bench", "--recipe", "bench/lm", "--mode", "forward", "--context", 5, parts=["--context", "decode or prefill"])
        self.expect(2, "bench", "--recipe", "bench/lm", "--mode", "decod", parts=["--mode"])
        self.expect(2, "bench", "--recipe", "bench/lm", "--mode", "decode", "--ring", "int8", parts=["--ring"])
        self.expect(2, "bench", "--recipe", "bench/lm", "--mode", "decode", "--steps", 3, "--length", 3, parts=["--steps", "--length"])
        self.expect(2, "bench", "--recipe", "bench/lm", "--mode", "decode", "--activation-rate", 0.5, "--set", "model.layer=ema", parts=["--activation-rate", "nobody decides"])
        self.expect(2, "bench", "--recipe", "bench/lm", "--mode", "decode", "--simd", "no-such", parts=["no-such"])
        random_model(self.dir / "m")
        self.expect(2, "bench", "--model", self.dir / "m", "--mode", "decode", "--type", "int8", parts=["--type int8", "float32", "quantize"])
        self.expect(2, "bench", "--model", self.dir / "m", "--mode", "decode", "--set", "model.d_model=8", parts=["--set", "config of its own"])
        random_model(self.dir / "m", causal=False, task="classification", classes=2)
        self.expect(5, "bench", "--model", self.dir / "m", "--mode", "decode", parts=["cannot stream", "bidirectional"])


if __name__ == "__main__":
    unittest.main()
