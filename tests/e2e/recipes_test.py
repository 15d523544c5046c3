"""seqboat recipes"""

import os
import unittest

from support import SOURCE_DIR, CliTest


class Recipes(CliTest):
    def test_list(self):
        recipes = {r["name"]: r for r in self.json_of("recipes", "list")["recipes"]}
        for name in ("lra/listops", "lra/listops-short", "lra/listops-small"):
            self.assertIn(name, recipes)
            self.assertTrue(recipes[name]["title"])
        self.assertEqual(sorted(recipes), list(recipes))
        self.assertIn("lra/listops-short", self.expect(0, "recipes", "list").stdout)

    def test_show(self):
        text = self.expect(0, "recipes", "show", "lra/listops").stdout
        self.assertEqual(text, (SOURCE_DIR / "recipes/lra/listops.toml").read_text())
        resolved = self.json_of("recipes", "show", "lra/listops", "--set", "model.n_layers=3")["resolved"]
        self.assertEqual(resolved["model"]["n_layers"], 3)
        self.assertEqual(resolved["optim"]["betas"], [0.9, 0.98])

    def test_published_settings_of_listops(self):
        r = self.json_of("recipes", "show", "lra/listops")["resolved"]
        m, o, t, d = r["model"], r["optim"], r["train"], r["data"]
        self.assertEqual((m["n_layers"], m["d_model"], m["d_hidden"], m["d_attn"], m["d_state"]), (6, 80, 160, 64, 16))
        self.assertEqual((m["window_size"], m["truncation"], m["max_positions"]), (128, 1024, 2002))
        self.assertEqual((m["attention"], m["position"], m["norm"], m["prenorm"], m["sinusoidal"]), ("softmax", "simple", "layernorm", False, False))
        self.assertEqual((m["dropout"], m["ffn_dim"], r["router"]["temperature_init"], r["router"]["bias"]), (0.1, 0, 0.3, 0))
        self.assertEqual((r["task"]["classes"], r["task"]["pool"], r["task"]["classifier_layers"], r["task"]["d_classifier"]), (10, "mean", 1, 160))
        self.assertEqual((o["name"], o["lr"], o["betas"], o["eps"], o["weight_decay"], o["clip_norm"]), ("adam", 0.004, [0.9, 0.98], 1e-8, 0.001, 1.0))
        self.assertEqual((o["schedule"], o["warmup"], o["warmup_init_lr"], o["total_steps"], o["power"], o["end_lr"]),
                         ("linear-decay", 27000, 1e-7, 90000, 1, 0))
        self.assertEqual((t["steps"], t["batch_size"], t["accumulate"]), (90000, 64, 1))
        self.assertEqual((d["min_length"], d["max_length"], d["max_depth"], d["max_args"]), (500, 2000, 10, 10))
        self.assertEqual((d["train_examples"], d["valid_examples"], d["test_examples"]), (96000, 2000, 2000))

    def test_published_settings_of_text(self):
        r = self.json_of("recipes", "show", "lra/text")["resolved"]
        m, o, t = r["model"], r["optim"], r["train"]
        self.assertEqual((m["n_layers"], m["d_model"], m["d_hidden"], m["d_attn"], m["d_state"]), (4, 128, 256, 64, 16))
        self.assertEqual((m["window_size"], m["truncation"], m["max_positions"]), (128, 1024, 4002))
        self.assertEqual((m["attention"], m["position"], m["norm"], m["prenorm"], m["sinusoidal"]), ("softmax", "local", "scalenorm", False, False))
        self.assertEqual((m["dropout"], m["ffn_dim"], r["router"]["temperature_init"], r["router"]["bias"]), (0.1, 0, 0.3, 0))
        self.assertEqual((r["task"]["classes"], r["task"]["pool"], r["task"]["classifier_layers"], r["task"]["d_classifier"]), (2, "mean", 1, 256))
        self.assertEqual((o["name"], o["lr"], o["betas"], o["eps"], o["weight_decay"], o["clip_norm"]), ("adam", 0.004, [0.9, 0.98], 1e-8, 0.01, 1.0))
        self.assertEqual((o["schedule"], o["warmup"], o["warmup_init_lr"], o["total_steps"], o["power"], o["end_lr"]),
                         ("linear-decay", 10000, 1e-7, 25000, 1, 0))
        self.assertEqual((t["steps"], t["batch_size"], t["max_tokens"], t["accumulate"]), (25000, 50, 0, 1))
        self.assertEqual((r["data"]["name"], r["data"]["max_length"], r["data"]["valid"]), ("imdb", 4000, "test"))

    def test_configurations_of_the_benchmarks(self):
        sizes = {"listops": (80, 64, 6, 2048, 8, 1024), "text": (128, 64, 4, 4096, 4, 1024), "image": (160, 96, 8, 1024, 8, 1024),
                 "speech": (60, 30, 8, 16000, 2, 4000), "lm": (512, 128, 12, 2048, 1, 2048)}
        for name, (d_model, d_attn, n_layers, length, batch, truncation) in sizes.items():
            r = self.json_of("recipes", "show", f"bench/{name}")["resolved"]
            m = r["model"]
            self.assertEqual((m["d_model"], m["d_attn"], m["n_layers"], r["data"]["length"], r["train"]["batch_size"], m["truncation"]),
                             (d_model, d_attn, n_layers, length, batch, truncation), name)
            self.assertEqual((m["d_hidden"], m["d_state"], m["window_size"], m["causal"]), (2 * d_model, 16, 1024 if name == "lm" else 128, name == "lm"))

    def test_resolved_text_reads_back(self):
        mine = self.dir / "mine.toml"
        mine.write_text(self.expect(0, "recipes", "show", "lra/listops-short", "--resolved").stdout)
        self.assertEqual(self.json_of("recipes", "show", mine)["resolved"], self.json_of("recipes", "show", "lra/listops-short")["resolved"])

    def test_copy_never_overwrites(self):
        mine = self.dir / "mine.toml"
        self.assertEqual(self.json_of("recipes", "copy", "lra/listops", mine)["path"], str(mine))
        original = mine.read_text()
        self.assertEqual(original, (SOURCE_DIR / "recipes/lra/listops.toml").read_text())
        mine.write_text("precious")
        self.expect(1, "recipes", "copy", "lra/listops", mine, parts=[str(mine), "exists"])
        self.assertEqual(mine.read_text(), "precious")
        os.symlink(self.dir / "target", self.dir / "link.toml")
        self.expect(1, "recipes", "copy", "lra/listops", self.dir / "link.toml", parts=["exists"])
        self.assertFalse((self.dir / "target").exists())
        self.expect(0, "recipes", "copy", "lra/listops", self.dir)
        self.assertEqual((self.dir / "listops.toml").read_text(), original)
        self.expect(1, "recipes", "copy", "lra/listops", self.dir / "no" / "such" / "x.toml", parts=["No such file or directory"])

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_copy_into_a_read_only_folder(self):
        self.dir.chmod(0o555)
        self.expect(1, "recipes", "copy", "lra/listops", self.dir / "x.toml", parts=["Permission denied"])

    @unittest.skipUnless(os.path.isdir("/proc/self"), "no /proc")
    def test_copy_where_nothing_can_be_written(self):
        self.expect(1, "recipes", "copy", "lra/listops", "/proc/x.toml", parts=["/proc/x.toml", "cannot be created"])

    def test_unknown(self):
        self.expect(2, "recipes", "show", "lra/listosp", parts=["did you mean lra/listops?"])
        self.expect(2, "recipes", "copy", "zzz", self.dir / "x.toml", parts=["recipes list"])
        self.expect(2, "recipes", "show", "../secret", parts=["unknown recipe"])
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_folder_named_by_the_environment(self):
        (self.dir / "own").mkdir()
        (self.dir / "own" / "tiny.toml").write_text((SOURCE_DIR / "recipes/lra/listops-short.toml").read_text())
        env = {"SEQBOAT_RECIPES": str(self.dir)}
        self.assertEqual([r["name"] for r in self.json_of("recipes", "list", env=env)["recipes"]], ["own/tiny"])
        self.expect(2, "recipes", "show", "lra/listops", env=env, parts=["unknown recipe"])
        self.expect(2, "recipes", "list", env={"SEQBOAT_RECIPES": str(self.dir / "absent")}, parts=["SEQBOAT_RECIPES"])


if __name__ == "__main__":
    unittest.main()
