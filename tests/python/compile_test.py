"""SeqBoatLayer under torch.compile(fullgraph=True) and torch.export: the eager results, in training and evaluation, at any size."""

import copy
import os
import pathlib
import shutil
import sysconfig
import tempfile
import unittest

from support import gradients, largest_error, make_layer
import torch

LAYERS = {
    "causal": dict(causal=True, truncation=4),
    "batchnorm first, rotary": dict(norm="batchnorm", prenorm=True, position="rotary"),
    "batchnorm last": dict(norm="batchnorm", layer="seqboat-full"),
    "everything activated": dict(layer="seqboat-full", attention="relu2", position="local"),
    "dropout": dict(dropout=0.3),
}


class Compiled(unittest.TestCase):
    def setUp(self):
        torch._dynamo.reset()

    def compare(self, layer, compiled, inputs, tolerance):
        """Outputs, gradients and buffers of both, from the same random numbers."""
        state = copy.deepcopy(layer.state_dict())
        results = []
        for run in (layer, compiled):
            layer.load_state_dict(state)
            torch.manual_seed(3)
            x = inputs[0].clone().requires_grad_()
            y = run(x, *inputs[1:])
            results.append([y.detach(), *gradients(layer, y, x), *(b.clone() for b in layer.buffers())])
        for want, got in zip(*results, strict=True):
            self.assertLessEqual(largest_error([got], [want]), tolerance)

    def test_eager_results(self):
        for name, options in LAYERS.items():
            for training in (True, False):
                with self.subTest(layer=name, training=training):
                    torch._dynamo.reset()
                    layer = make_layer(**options).train(training)
                    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
                    self.compare(layer, compiled, (torch.randn(2, 30, 16),), 0)  # the same operators: the same bits
                    with torch.no_grad():
                        x = torch.randn(2, 30, 16)
                        torch.manual_seed(4)
                        want = layer(x)
                        torch.manual_seed(4)
                        self.assertTrue(torch.equal(compiled(x), want))

    def test_other_sizes_and_packed_sequences(self):
        layer = make_layer(causal=True)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
        for batch, length in ((2, 30), (3, 7), (5, 64)):
            self.compare(layer, compiled, (torch.randn(batch, length, 16),), 0)
        for lengths in ((5, 1, 20), (9, 40), (3, 0, 0, 8)):
            cu = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0).to(torch.int32)
            self.compare(layer, compiled, (torch.randn(sum(lengths), 16), cu), 0)
        with self.assertRaisesRegex(RuntimeError, "cu_seqlens must go from 0 to 10, got 0 to 9"):
            compiled(torch.randn(10, 16), torch.tensor([0, 4, 9], dtype=torch.int32))

    def test_inductor(self):
        header = pathlib.Path(sysconfig.get_path("include")) / "Python.h"
        if not shutil.which("g++") or not header.exists():
            self.skipTest(f"torch.compile's own backend needs g++ and {header}")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder.name
        with torch._inductor.config.patch(compile_threads=1, fallback_random=True):
            layer = make_layer(causal=True, dropout=0.2)
            compiled = torch.compile(layer, fullgraph=True)
            # What it compiles anew are a few element-wise products of parameters: a rounding or two each.
            self.compare(layer, compiled, (torch.randn(2, 30, 16),), 64 * 2**-24)
            layer.eval()
            self.compare(layer, compiled, (torch.randn(2, 30, 16),), 64 * 2**-24)

    def test_export(self):
        for options in (dict(causal=True), dict(norm="batchnorm", prenorm=True)):
            layer = make_layer(**options).eval()
            length = torch.export.Dim("length", min=2, max=4096)
            exported = torch.export.export(layer, (torch.randn(2, 30, 16),), dynamic_shapes={"x": {1: length}}).module()
            for steps in (30, 70):
                x = torch.randn(2, steps, 16)
                self.assertTrue(torch.equal(exported(x), layer(x)))


if __name__ == "__main__":
    unittest.main()
