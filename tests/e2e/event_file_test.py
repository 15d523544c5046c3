"""Event files, read by TensorBoard's own readers: the points that were written come back, and those that a restart has made void do not."""

import math
import os
import pathlib
import struct
import subprocess
import tempfile
import unittest

from support import BINARY, read_events

WRITER = os.environ.get("SEQBOAT_WRITE_EVENTS", str(pathlib.Path(BINARY).with_name("write_events")))


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


class EventFiles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="seqboat-e2e-")
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)

    def write(self, first_step, wall_time, *lines):
        """One process of a run. Returns its file."""
        before = set(self.dir.iterdir())
        commands = [f"open {self.dir} {first_step} {wall_time}", *lines]
        subprocess.run([WRITER], input="\n".join(commands) + "\n", text=True, check=True, timeout=60)
        (file,) = set(self.dir.iterdir()) - before
        return file

    def write_points(self, first_step, wall_time, steps, **values):
        """One process with a point of each curve at each step, a second a step; values are functions of the step."""
        lines = [f"scalars {s} {wall_time + s} " + " ".join(f"{tag} {value(s)}" for tag, value in values.items()) for s in steps]
        return self.write(first_step, wall_time, *lines)

    def read(self):
        """What both readers agree on: scalars and texts."""
        found = read_events(self.dir)
        self.assertTrue(found["canonical"])
        self.assertEqual(found["accumulator"]["scalars"], found["server"]["scalars"])
        self.assertEqual(found["accumulator"]["texts"], found["server"]["texts"])
        return found["server"]

    def steps(self, tag="train/loss"):
        return [step for step, _, _ in self.read()["scalars"][tag]]

    def test_points_and_texts_come_back(self):
        large = 2**40 + 1  # steps have 64 bits
        self.write(
            0, 1700000000.5,
            "text 0 1700000001 recipe ## Title *and* `code`, äöü",
            "text 0 1700000001.25 long " + 1000 * "long ",
            "scalars 10 1700000010.125 train/loss 2.302585 lr 0.1 train/activation_rate/layer_0 0.5",
            "scalars 20 1700000020.000001 train/loss -1e-30 lr 0",
            f"scalars {large} 1700000021 train/loss 1e38",
        )
        found = self.read()
        self.assertEqual(found["scalars"], {
            "train/loss": [[10, 1700000010.125, float32(2.302585)], [20, 1700000020.000001, float32(-1e-30)], [large, 1700000021, float32(1e38)]],
            "lr": [[10, 1700000010.125, float32(0.1)], [20, 1700000020.000001, 0]],
            "train/activation_rate/layer_0": [[10, 1700000010.125, 0.5]],
        })
        self.assertEqual(found["texts"], {
            "recipe": [[0, 1700000001, "## Title *and* `code`, äöü"]],
            "long": [[0, 1700000001.25, 1000 * "long "]],
        })

    def test_what_is_no_number(self):
        self.write(0, 1700000000, "scalars 1 1700000001 x nan", "scalars 2 1700000002 x -inf", "scalars 3 1700000003 x 1e300")
        for reader in ("accumulator", "server"):
            (nan, *infinite) = [value for _, _, value in read_events(self.dir)[reader]["scalars"]["x"]]
            self.assertTrue(math.isnan(nan))
            self.assertEqual(infinite, [-math.inf, math.inf])

    def test_a_run_that_was_killed_goes_on(self):
        """Points that lie after the checkpoint were written twice, or will be: those of the killed process are not shown."""
        self.write_points(0, 1700000000, range(10, 60, 10), **{"train/loss": lambda s: s, "valid/accuracy": lambda s: s / 100})
        self.write_points(31, 1700000100, (40,), **{"train/loss": lambda s: s + 0.5})
        found = self.read()["scalars"]
        self.assertEqual([(step, value) for step, _, value in found["train/loss"]], [(10, 10), (20, 20), (30, 30), (40, 40.5)])
        # Also of a curve of which the new process has written nothing.
        self.assertEqual([step for step, _, _ in found["valid/accuracy"]], [10, 20, 30])

    def test_a_run_that_stopped_in_order_loses_nothing(self):
        self.write_points(0, 1700000000, (10, 20, 30), **{"train/loss": float})
        self.write_points(31, 1700000100, (40, 50), **{"train/loss": float})
        self.assertEqual(self.steps(), [10, 20, 30, 40, 50])

    def test_killed_again_and_again_within_a_second(self):
        for first, steps in ((0, (10, 20, 30)), (21, (30, 40, 50)), (41, ()), (11, (20, 30)), (31, (40,))):
            self.write_points(first, 1700000000, steps, **{"train/loss": float})
        self.assertEqual(self.steps(), [10, 20, 30, 40])

    def test_begun_anew_before_the_first_checkpoint(self):
        self.write_points(0, 1700000000, (10, 20), **{"train/loss": float})
        self.write_points(0, 1700000100, (10,), **{"train/loss": lambda s: -s})
        self.assertEqual([(step, value) for step, _, value in self.read()["scalars"]["train/loss"]], [(10, -10)])

    def test_killed_in_the_middle_of_a_record(self):
        """What was whole is read, and so is the next file."""
        file = self.write_points(0, 1700000000, (10, 20, 30), **{"train/loss": float})
        whole = file.read_bytes()
        for cut in (1, 4, 20, 40):
            file.write_bytes(whole[:-cut])
            self.assertEqual(self.steps(), [10, 20])
        self.write_points(11, 1700000100, (20,), **{"train/loss": float})
        self.assertEqual(self.steps(), [10, 20])

    def test_the_reader_notices_a_flipped_bit(self):
        """The checksums are those that readers expect, not ones they pass over: a record with a wrong one is not shown."""
        file = self.write_points(0, 1700000000, (10, 20, 30), **{"train/loss": float})
        content = bytearray(file.read_bytes())
        content[-6] ^= 1
        file.write_bytes(content)
        self.assertEqual(self.steps(), [10, 20])


if __name__ == "__main__":
    unittest.main()
