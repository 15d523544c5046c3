"""Spoken words: folders of sound files from training to an accuracy, what an exported model says of its input, and what the user gets wrong."""

import json
import math
import random
import shutil
import unittest

from support import HAS_TRAIN, CliTest, wav

TINY = {
    "data.name": "speech-commands", "data.split": "speakers", "model.d_model": 16, "model.d_hidden": 24, "model.d_attn": 8, "model.d_state": 4,
    "model.n_layers": 2, "model.window_size": 8, "model.dropout": 0.0, "task.d_classifier": 16, "task.classes": 3, "data.seconds": 0.2,
    "train.batch_size": 16, "train.steps": 100, "optim.total_steps": 100, "optim.warmup": 10, "optim.lr": 0.02, "train.eval_every": 50, "train.log_every": 10,
}
WORDS = {"low": 300, "middle": 700, "top": 1500}


def tone(hertz, seconds, rate, draw):
    phase, loud = draw.random() * 6.28, draw.uniform(0.2, 0.5)
    return [loud * math.sin(phase + 2 * math.pi * hertz * i / rate) + draw.gauss(0, 0.02) for i in range(int(seconds * rate))]


class SpeechTest(CliTest):
    def setUp(self):
        super().setUp()
        draw = random.Random(3)
        self.words = self.dir / "words"
        for word, hertz in WORDS.items():
            (self.words / word).mkdir(parents=True)
            for speaker in range(40):
                # A few of another rate, and with two channels.
                rate, channels = [(8000, 1), (8000, 1), (16000, 1), (8000, 2)][speaker % 4]
                clip = tone(hertz * draw.uniform(0.95, 1.05), draw.uniform(0.1, 0.25), rate, draw)
                (self.words / word / f"s{speaker}_nohash_0.wav").write_bytes(wav(clip, rate, channels))

    def write_digits(self):
        folder = self.dir / "digits" / "recordings"
        folder.mkdir(parents=True)
        for digit in range(10):
            for speaker in ("ann", "bob"):
                for index in range(12):
                    (folder / f"{digit}_{speaker}_{index}.wav").write_bytes(wav([0.1] * (400 + 10 * digit)))
        return self.dir / "digits"


class Data(SpeechTest):
    def test_check_and_stats_of_words(self):
        checked = self.json_of("data", "check", self.words)
        self.assertIs(checked["ok"], True)
        self.assertEqual(([f["split"] for f in checked["files"]], sum(f["samples"] for f in checked["files"])), (["train", "val", "test"], 120))
        self.assertTrue(all(f["labels"] == 3 for f in checked["files"]))
        stats = self.json_of("data", "stats", self.words, "--split", "train")
        self.assertEqual((list(stats["labels"]), sum(stats["labels"].values())), (["low", "middle", "top"], checked["files"][0]["samples"]))
        self.assertEqual(set(stats["sample_rates"]), {"8000", "16000"})
        self.assertTrue(0.1 <= stats["seconds"]["min"] <= stats["seconds"]["median"] <= stats["seconds"]["max"] <= 0.25, stats)
        self.assertTrue(0.1 < stats["rms"] < 0.4 and 0.4 < stats["peak"] < 0.7, stats)
        self.assertIn("data.gain", self.expect(0, "data", "stats", self.words).stdout)

    def test_check_and_stats_of_digits(self):
        folder = self.write_digits()
        files = self.json_of("data", "check", folder)["files"]
        self.assertEqual([(f["samples"], f["speakers"]) for f in files], [(40, 2), (100, 2), (100, 2)])
        self.assertEqual(self.json_of("data", "stats", folder)["labels"], {str(digit): 10 for digit in range(10)})
        (folder / "recordings" / "zero_ann_3.wav").write_bytes(wav([0.0]))
        self.expect(4, "data", "check", folder, "--quiet", parts=["DIGIT_SPEAKER_INDEX.wav", "zero_ann_3.wav"])

    def test_records_of_mu_law(self):
        for split in ("train", "val", "test"):
            (self.dir / f"asc10_{split}.tsv").write_text("record\tlabel\tkeyword\tspeaker\tsource_file\n0\t0\tyes\t7\ta\n1\t1\tno\t8\tb\n")
            (self.dir / f"asc10_{split}_16k.ulaw").write_bytes(bytes([0xFF]) * 16000 + bytes([0x80]) * 16000)
        stats = self.json_of("data", "stats", self.dir)
        self.assertEqual((stats["data"], stats["labels"], stats["seconds"]["total"]), ("asc10", {"yes": 1, "no": 1}, 2.0))
        self.assertAlmostEqual(stats["peak"], 32124 / 32768)
        (self.dir / "asc10_val_16k.ulaw").write_bytes(bytes(31999))
        self.expect(4, "data", "check", self.dir, "--quiet", parts=["asc10_val_16k.ulaw", "2 records of 16000", "found 31999"])
        (self.dir / "asc10_val_16k.ulaw").rename(self.dir / "asc10_val_16k.ulaw.xz")
        self.expect(4, "data", "check", self.dir, "--quiet", parts=["run xz -dk"])

    def test_bad_sounds_are_named(self):
        file = self.words / "low" / "s5_nohash_0.wav"
        whole = file.read_bytes()
        for content, parts in ((b"", ["is empty"]), (b"no sound at all", ["expected a sound file"]), (whole[:-100], ["truncated", "expected", "found"])):
            file.write_bytes(content)
            self.expect(4, "data", "check", self.words, "--quiet", parts=[file, *parts])

    def test_list_says_how_to_come_by_them(self):
        sources = {d["name"]: d["source"] for d in self.json_of("data", "list")["data"]}
        self.assertIn("speech_commands_v0.02", sources["speech-commands"])
        self.assertIn("free-spoken-digit-dataset", sources["fsdd"])
        self.assertIn("arabic-speech-commands-dataset", sources["asc10"])
        self.expect(2, "data", "make", "fsdd", parts=["nothing is made", "free-spoken-digit-dataset"])


class Recipes(CliTest):
    def test_published_settings_of_sc10(self):
        r = self.json_of("recipes", "show", "speech/sc10")["resolved"]
        m, o, t, d = r["model"], r["optim"], r["train"], r["data"]
        self.assertEqual((m["input"], m["channels"], m["causal"]), ("real", 1, False))
        self.assertEqual((m["n_layers"], m["d_model"], m["d_hidden"], m["d_attn"], m["d_state"]), (8, 60, 120, 30, 16))
        self.assertEqual((m["window_size"], m["truncation"], m["max_positions"]), (128, 4000, 16000))
        self.assertEqual((m["attention"], m["position"], m["norm"], m["prenorm"], m["sinusoidal"]), ("relu2", "local", "batchnorm", True, True))
        self.assertEqual((m["dropout"], m["ffn_dim"], r["router"]["temperature_init"], r["router"]["bias"]), (0, 0, 1.0, 0))
        self.assertEqual((r["task"]["classes"], r["task"]["pool"], r["task"]["classifier_layers"], r["task"]["d_classifier"]), (10, "mean", 1, 120))
        self.assertEqual((o["name"], o["lr"], o["betas"], o["eps"], o["weight_decay"], o["clip_norm"]), ("adam", 0.01, [0.9, 0.98], 1e-8, 0.01, 1.0))
        self.assertEqual((o["schedule"], o["warmup"], o["warmup_init_lr"], o["total_steps"], o["power"], o["end_lr"]),
                         ("linear-decay", 10000, 1e-7, 250000, 1, 0))
        self.assertEqual((t["steps"], t["batch_size"], t["max_tokens"], t["accumulate"]), (250000, 20, 0, 1))
        self.assertEqual((d["name"], d["words"].count(","), d["split"]), ("speech-commands", 9, "stratified"))
        self.assertEqual((d["sample_rate"], d["frame_ms"], d["seconds"], d["fit"], d["normalize"]), (16000, 0, 1, "exact", "time-index"))

    def test_keys_of_sound_are_checked(self):
        show = ("recipes", "show", "speech/kws-causal-small", "--resolved", "--set")
        self.expect(3, *show, "data.frame_ms=0.3", parts=["data.frame_ms", "whole number of samples", "8000"])
        self.expect(3, *show, "data.fit=stretch", parts=["data.fit", "cut", "pad", "exact"])
        self.expect(3, *show, "data.normalize=time-index", parts=["data.normalize", "data.fit"])
        self.expect(3, *show, "data.split=stratified", parts=["data.split", "fsdd"])
        self.expect(3, *show, "data.split=speakers", parts=["data.test_speakers"])
        self.expect(3, *show, "data.words=yes", parts=["data.words", "belongs to", "speech-commands"])
        self.expect(3, *show, "data.gain=0", parts=["data.gain", "(0, 1e6]"])
        self.expect(3, "recipes", "show", "lra/listops", "--resolved", "--set", "data.frame_ms=10", parts=["data.frame_ms", "belongs to", "fsdd"])


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
class Train(SpeechTest):
    def arguments(self, name, threads=1, **changes):
        settings = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
        words = ["train", "speech/kws-causal-small", "--out", self.dir / name, "--threads", threads]
        for key, value in settings.items():
            words += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
        return words

    def test_from_folders_to_an_accuracy(self):
        result = json.loads(self.expect(0, *self.arguments("run"), "--data", self.words, "--json", "--quiet").stdout)
        self.assertEqual((result["metric"], result["finished"]), ("accuracy", True))
        value = self.json_of("eval", self.dir / "run")
        self.assertEqual((value["task"], value["split"]), ("speech-commands", "test"))
        self.assertGreater(value["value"], 0.9)

        # What a program needs to feed the model is beside the weights: the same for every checkpoint.
        config = json.loads((self.dir / "run" / "model" / "config.json").read_text())
        self.assertEqual(config["channels"], 80)
        self.assertEqual({key: config["data"][key] for key in ("name", "sample_rate", "frame", "normalize", "labels")},
                         {"name": "speech-commands", "sample_rate": 8000, "frame": 80, "normalize": "none", "labels": ["low", "middle", "top"]})
        self.assertGreater(config["data"]["gain"], 0)
        self.assertIn("labels", self.json_of("inspect", self.dir / "run")["config"]["data"])
        # A bare model folder knows by it how data are read. (It takes whole clips, where the run cut them: so no more than the split is compared.)
        shutil.copytree(self.dir / "run" / "model", self.dir / "bare")
        bare = self.json_of("eval", self.dir / "bare", "--data", self.words, "--set", "data.split=speakers", "--set", "data.seconds=0.2")
        self.assertEqual((bare["value"], bare["loss"], bare["examples"]), (value["value"], value["loss"], value["examples"]))
        # FLAC or another rate would do; other settings than the model's do not.
        self.expect(5, "eval", self.dir / "run", "--set", "data.gain=3", parts=["data.gain", "config.json", "read with 3"])
        self.expect(5, "eval", self.dir / "run", "--set", "data.sample_rate=16000", parts=["channels must be 160", "found 80"])
        (self.words / "top").rename(self.words / "Top")
        self.expect(5, "eval", self.dir / "run", parts=["data.labels", "low, middle, top", "Top, low, middle"])
        (self.words / "Top").rename(self.words / "top")

        # The run goes on, the same whether it was interrupted or not; a changed clip is noticed.
        self.expect(0, "train", self.dir / "run", "--steps", 110, "--quiet")
        self.expect(0, *self.arguments("again", threads=2, train__steps=110), "--data", self.words, "--quiet")
        weights = [next((self.dir / run / "checkpoints").glob("*110/model.safetensors")).read_bytes() for run in ("run", "again")]
        self.assertEqual(weights[0], weights[1])
        for file in (self.words / "low").iterdir():
            file.write_bytes(wav([0.1] * 1000))
        self.expect(5, "train", self.dir / "run", "--steps", 120, parts=["other training data"])

    def test_bidirectional_and_sample_by_sample(self):
        self.expect(0, *self.arguments("both", model__causal=False, train__steps=3), "--data", self.words, "--quiet")
        self.expect(0, *self.arguments("samples", data__frame_ms=0, data__seconds=0.02, train__steps=2), "--data", self.words, "--quiet")
        self.assertEqual(json.loads((self.dir / "samples" / "model" / "config.json").read_text())["data"]["frame"], 1)

    def test_normalized_by_the_place_in_the_clip(self):
        settings = {"data__normalize": "time-index", "data__fit": "pad", "data__shift_ms": 0, "data__speed": 0, "data__gain": 1, "train__steps": 2}
        self.expect(0, *self.arguments("run", **settings), "--data", self.words, "--quiet")
        self.assertEqual(json.loads((self.dir / "run" / "model" / "config.json").read_text())["data"]["normalize"], "time-index")
        self.assertEqual(self.json_of("eval", self.dir / "run", "--split", "valid")["task"], "speech-commands")

    def test_digits(self):
        folder = self.write_digits()
        settings = {"data__name": "fsdd", "task__classes": 10, "train__steps": 2, "data__split": "official"}
        self.expect(0, *self.arguments("run", **settings), "--data", folder, "--quiet")
        self.assertIn("40 training and 100 validation examples", (self.dir / "run" / "train.log").read_text())
        self.assertEqual(self.json_of("eval", self.dir / "run")["examples"], 100)
        self.expect(0, *self.arguments("held-out", **{**settings, "data__split": "speakers", "data__test_speakers": "bob"}), "--data", folder, "--quiet")
        self.assertEqual(self.json_of("eval", self.dir / "held-out")["examples"], 120)
        self.expect(3, *self.arguments("a", **{**settings, "data__split": "speakers", "data__test_speakers": "eve"}), "--data", folder,
                    parts=["data.test_speakers", "ann, bob", "eve"])

    def test_what_a_user_gets_wrong(self):
        self.expect(4, *self.arguments("a"), parts=["no such folder", "speech_commands_v0.02", "--data DIR", self.dir / "cache" / "seqboat"])
        self.expect(4, *self.arguments("a", data__split="official"), "--data", self.words, parts=["validation_list.txt", "data.split"])
        self.expect(3, *self.arguments("a", task__classes=4), "--data", self.words, parts=["task.classes must be 3", "found 4"])
        self.expect(3, *self.arguments("a", model__channels=79), "--data", self.words, parts=["model.channels must be 80", "found 79"])
        self.expect(3, *self.arguments("a", model__input="tokens"), "--data", self.words, parts=["model.input"])
        self.expect(4, *self.arguments("a", data__words="low,loud,top"), "--data", self.words, parts=["'loud'", "low, middle, top"])
        (self.words / "low" / "s0_nohash_0.wav").write_bytes(b"RIFF")
        self.expect(4, *self.arguments("a"), "--data", self.words, "--quiet", parts=["s0_nohash_0.wav"])


if __name__ == "__main__":
    unittest.main()
