"""Pictures from their files, or made, to an accuracy; and what the user gets wrong."""

import json
import random
import struct
import unittest
import zlib

from support import HAS_TRAIN, CliTest

TINY = {
    "model.d_model": 8, "model.d_hidden": 8, "model.d_attn": 4, "model.d_state": 2, "model.n_layers": 1, "model.window_size": 8, "model.truncation": 0,
    "task.d_classifier": 8, "train.batch_size": 4, "train.steps": 6, "optim.total_steps": 6, "optim.warmup": 2, "train.eval_every": 3, "train.log_every": 2,
}


def png(pixels, side):
    """A grey picture as a file."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[y * side:(y + 1) * side] for y in range(side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def train_words(recipe, out, **changes):
    settings = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    words = ["train", recipe, "--out", out, "--threads", 1]
    for key, value in settings.items():
        words += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
    return words


class Pictures(CliTest):
    def setUp(self):
        super().setUp()
        draw = random.Random(1)
        self.cifar, self.mnist = self.dir / "cifar-10-batches-bin", self.dir / "mnist"
        self.cifar.mkdir()
        self.mnist.mkdir()
        for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
            (self.cifar / f"{name}.bin").write_bytes(b"".join(bytes([draw.randrange(10)]) + draw.randbytes(3072) for _ in range(4)))
        for part, count in (("train", 20), ("t10k", 8)):
            (self.mnist / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, count, 28, 28) + draw.randbytes(784 * count))
            (self.mnist / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + bytes(draw.randrange(10) for _ in range(count)))

    def test_check_and_stats(self):
        for folder, samples in ((self.cifar, 24), (self.mnist, 28)):
            checked = self.json_of("data", "check", folder)
            self.assertIs(checked["ok"], True)
            self.assertEqual(sum(f["samples"] for f in checked["files"]), samples)
            self.expect(0, "data", "stats", folder)
        (self.mnist / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 8) + bytes(7))
        self.expect(4, "data", "check", self.mnist, "--quiet", parts=["t10k-labels-idx1-ubyte", "8 labels", "16 bytes", "found 15"])

    def test_made_pictures(self):
        folder = self.dir / "pf"
        made = self.json_of("data", "make", "pathfinder", "--size", 32, "--count", 40, "--out", folder)
        self.assertEqual(made["made"], ["train", "val", "test"])
        self.assertEqual([(folder / f"pathfinder32_{split}.bin").stat().st_size for split in made["made"]], [32 * 1025, 4 * 1025, 4 * 1025])
        self.assertEqual(self.json_of("data", "make", "pathfinder", "--size", 32, "--count", 40, "--out", folder)["made"], [])
        self.assertIs(self.json_of("data", "check", folder)["ok"], True)
        self.expect(2, "data", "make", "pathfinder", "--size", 64, "--out", self.dir / "x", parts=["32", "128", "64"])
        self.expect(2, "data", "make", "pathfinder", "--max-depth", 3, "--out", self.dir / "x", parts=["listops"])
        self.expect(2, "data", "make", "listops", "--size", 32, "--out", self.dir / "x", parts=["--size"])
        self.assertFalse((self.dir / "x").exists())

    def test_published_pathfinder_is_packed(self):
        draw, published = random.Random(2), self.dir / "pathfinder32" / "curv_contour_length_14"
        pictures = []
        for batch in (0, 1, 10):  # by number, not by name
            (published / "imgs" / str(batch)).mkdir(parents=True)
            (published / "metadata").mkdir(exist_ok=True)
            lines = []
            for number in range(8):
                pixels, label = draw.randbytes(1024), draw.randrange(2)
                (published / "imgs" / str(batch) / f"sample_{number}.png").write_bytes(png(pixels, 32))
                lines.append(f"imgs/{batch} sample_{number}.png {number} {label} 1.8 14 1 2 3\n")
                pictures.append(bytes([label]) + pixels)
            (published / "metadata" / f"{batch}.npy").write_text("".join(lines))
        out = self.dir / "packed"
        made = self.json_of("data", "make", "pathfinder", "--from", self.dir / "pathfinder32", "--out", out)
        self.assertEqual(made["made"], ["train", "val", "test"])
        for name, wanted in (("train", lambda i: i % 10 < 8), ("val", lambda i: i % 10 == 8), ("test", lambda i: i % 10 == 9)):
            self.assertEqual((out / f"pathfinder32_{name}.bin").read_bytes(), b"".join(p for i, p in enumerate(pictures) if wanted(i)), name)
        make = lambda code, *words, parts: self.expect(code, "data", "make", "pathfinder", "--quiet", *words, parts=parts)
        make(2, "--from", published, "--out", out, parts=["pathfinder32_train.bin is there already"])
        make(2, "--from", published, parts=["--out"])
        make(2, "--from", published, "--out", self.dir / "x", "--count", 20, parts=["--from"])
        make(4, "--from", self.cifar, "--out", self.dir / "x", parts=["metadata and imgs"])
        make(4, "--from", published, "--out", self.dir / "x", "--size", 128, parts=["sample_0.png", "128 x 128", "32 x 32"])
        (published / "imgs" / "1" / "sample_3.png").write_bytes(b"no picture")
        make(4, "--from", published, "--out", self.dir / "x", parts=["imgs/1/sample_3.png"])
        (published / "metadata" / "1.npy").write_text("imgs/1 sample_0.png 0 2\n")
        make(4, "--from", published, "--out", self.dir / "x", parts=["1.npy:1", "label", "0 or 1", "2"])
        (published / "metadata" / "1.npy").write_bytes(b"\x93NUMPY")
        make(4, "--from", published, "--out", self.dir / "x", parts=["1.npy", "array of NumPy's"])
        self.assertEqual(list(self.dir.glob("x/*")), [])

    @unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
    def test_from_files_to_an_accuracy(self):
        pathfinder = dict(data__train_examples=24, data__valid_examples=6, data__test_examples=10, data__path=str(self.dir / "made"))
        for recipe, data, tests, sides in (("lra/image-small", ["--data", self.cifar], 4, 32), ("lra/mnist-small", ["--data", self.mnist], 8, 28),
                                           ("lra/pathfinder-small", [], 10, 32)):
            run = self.dir / recipe.replace("/", "-")
            changes = pathfinder if "pathfinder" in recipe else dict(data__permutation_seed=3) if "mnist" in recipe else {}
            self.expect(0, *train_words(recipe, run, **changes), *data, "--quiet")
            value = self.json_of("eval", run, "--activations")
            self.assertEqual((value["metric"], value["examples"]), ("accuracy", tests))
            described = json.loads((run / "model" / "config.json").read_text())["data"]
            self.assertEqual((described["image"]["height"], described["image"]["width"]), (sides, sides))
            self.assertEqual(described["image"]["permutation_seed"], 3 if "mnist" in recipe else 0)
            if data:  # the bare folder knows how its pictures are read
                self.assertEqual(self.json_of("eval", run / "model", *data)["value"], value["value"])

    @unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
    def test_refuses(self):
        self.expect(4, *train_words("lra/image-small", self.dir / "a"), "--data", self.dir / "none", parts=["no such file or folder", "cs.toronto.edu"])
        self.expect(4, *train_words("lra/image-small", self.dir / "a"), "--data", self.mnist, parts=["cifar10_gray_train.bin", "data_batch_1.bin"])
        self.expect(3, *train_words("lra/image-small", self.dir / "a", data__permutation_seed=1), "--data", self.cifar, parts=["data.permutation_seed", "mnist"])
        self.expect(3, *train_words("lra/pathfinder-small", self.dir / "a", data__image_size=64), parts=["data.image_size", "32 or 128", "64"])


if __name__ == "__main__":
    unittest.main()
