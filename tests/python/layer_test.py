"""seqboat_torch.SeqBoatLayer: the published layer's numbers, packed sequences, streams, state dicts, dropout, and what it refuses."""

import copy
import math
import os
import pathlib
import subprocess
import sys
import unittest

from support import SOURCE_DIR, golden_cases, gradients, largest_error, make_layer, read_golden
import seqboat_torch as sbt
import torch

CAUSAL = {
    "softmax, bias by distance in time": {},
    "relu2, rotary, truncated, norm first": dict(attention="relu2", position="rotary", truncation=7, prenorm=True),
    "laplace, bias by distance among the activated, scalenorm": dict(attention="laplace", position="local", norm="scalenorm"),
    "everything activated, rmsnorm without weight": dict(layer="seqboat-full", norm="rmsnorm", norm_affine=False, truncation=3),
    "batchnorm last": dict(norm="batchnorm"),
}


def offsets(lengths, dtype=torch.int64):
    return torch.tensor([0, *lengths]).cumsum(0).to(dtype)


def official(layer):
    """The layer's state dict as the published layer writes it."""
    ours, found = dict(layer.state_dict()), {}
    for name in ("delta", "alpha", "beta"):
        found[f"move.{name}"] = ours.pop(f"ema.{name}")[..., None]
    for name in ("gamma", "omega"):
        found[f"move.{name}"] = ours.pop(f"ema.{name}")
    for theirs, mine in (("gamma", "attention.qk_gamma"), ("beta", "attention.qk_beta"), ("rel_pos_bias.rel_pos_bias", "attention.position.table"),
                         ("q_router.temp", "router.log_temperature")):
        if mine in ours:
            found[theirs] = ours.pop(mine)
    for leaf in ("weight", "bias"):
        found[f"mx_proj.{leaf}"], found[f"h_proj.{leaf}"] = ours.pop(f"attention.in_proj.{leaf}"), ours.pop(f"attention.out_proj.{leaf}")
        skip, router = ours.pop(f"skip_proj.{leaf}"), ours.pop(f"router.proj.{leaf}", None)
        found[f"hx_proj.{leaf}"] = skip if router is None else torch.cat([router, skip])
    for name in list(ours):
        found["norm.norm.scalar" if layer.norm_kind == "scalenorm" else f"norm.{name}"] = ours.pop(name)
    return found


class Golden(unittest.TestCase):
    def layer_of(self, meta):
        c = meta["ctor"]
        window = max(0, c.get("chunk_size", c.get("window_size", 0)))
        position = "local" if c["rel_pos_bias"] == "simple" and c.get("local_pos") and window else c["rel_pos_bias"]
        return sbt.SeqBoatLayer(
            c["embed_dim"], c["zdim"], c["hdim"], window, not c["bidirectional"], d_state=c["ndim"], truncation=c["truncation"] or 0,
            position=position, attention=c["attention_activation"], max_positions=c["max_positions"], norm=c["norm_type"],
            norm_affine=c.get("norm_affine", True), prenorm=c["prenorm"], temperature_init=c.get("init_temp_scale", 0.3),
            router_bias=meta.get("act_bias", 0.0), layer="seqboat-full" if c.get("always_act") else "seqboat")

    def test_outputs_and_gradients_of_the_published_layer(self):
        compared = 0
        for name in golden_cases("layer"):
            meta, tensors = read_golden(name)
            if meta["ctor"]["rel_pos_bias"] == "t5":
                continue
            real = ~tensors["input.padding_mask"].bool() if "input.padding_mask" in tensors else torch.ones(meta["B"], meta["T"], dtype=torch.bool)
            pack = lambda t: t.transpose(0, 1)[real]
            for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
                with self.subTest(case=name, dtype=dtype):
                    layer = self.layer_of(meta).to(dtype).train(meta.get("train", True))
                    given = {key.split(".", 1)[1]: t for key, t in tensors.items() if key.startswith(("param.", "buffer."))}
                    layer.load_state_dict(given)
                    x = pack(tensors["input.x"]).to(dtype).requires_grad_()
                    y = layer(x, offsets(real.sum(1).tolist()))
                    self.assertLess(largest_error([y.double()], [pack(tensors["out.f64"])]), tolerance)
                    (y * pack(tensors["loss_w"])).sum().backward()
                    want = {key[len("grad.param."):]: t for key, t in tensors.items() if key.startswith("grad.param.")}
                    graded = copy.deepcopy(layer)
                    graded.load_state_dict({key: p.grad for key, p in layer.named_parameters()}, strict=False)
                    got = official(graded)
                    got.update({key.replace("move.", "ssm."): value for key, value in got.items()})
                    want["x"], got["x"] = pack(tensors["grad.input.x"]), x.grad
                    self.assertLess(largest_error([got[key].reshape(want[key].shape).double() for key in want], list(want.values())), tolerance)
                    after = {key[len("buffer_after."):]: t for key, t in tensors.items() if key.startswith("buffer_after.")}
                    got = official(layer)
                    for key, value in after.items():
                        self.assertLess(largest_error([got[key].double()], [value.double()]), max(tolerance, 1e-6), key)
                    compared += 1
        self.assertEqual(compared, 2 * 22)


class Parameters(unittest.TestCase):
    def test_names_and_shapes(self):
        expected = {
            "norm.weight": (8,), "norm.bias": (8,), "ema.delta": (16, 3), "ema.alpha": (16, 3), "ema.beta": (16, 3), "ema.gamma": (16, 3),
            "ema.omega": (8,), "router.proj.weight": (2, 8), "router.proj.bias": (2,), "router.log_temperature": (1,),
            "skip_proj.weight": (8, 8), "skip_proj.bias": (8,), "attention.in_proj.weight": (36, 8), "attention.in_proj.bias": (36,),
            "attention.out_proj.weight": (8, 16), "attention.out_proj.bias": (8,),
            "attention.qk_gamma": (2, 4), "attention.qk_beta": (2, 4), "attention.position.table": (19,)}
        make = lambda **options: sbt.SeqBoatLayer(8, 4, d_state=3, max_positions=10, **options)
        of = lambda **options: {name: tuple(t.shape) for name, t in make(**options).state_dict().items()}
        self.assertEqual(of(), expected)
        causal = of(causal=True, norm="scalenorm", layer="seqboat-full", position="local", window_size=2)
        router = {"router.proj.weight", "router.proj.bias", "router.log_temperature"}
        for name in {"norm.bias", *router}:
            del expected[name]
        expected.update({f"ema.{name}": (8, 3) for name in ("delta", "alpha", "beta", "gamma")})
        expected.update({"norm.weight": (1,), "attention.position.table": (11,)})
        self.assertEqual(causal, expected)
        self.assertEqual(set(of(norm="batchnorm", norm_affine=False, position="rotary")) - set(expected),
                         {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked", *router})

    def test_initial_values(self):
        torch.manual_seed(1)
        layer = sbt.SeqBoatLayer(64, 32, d_state=16, causal=True, temperature_init=0.5)
        cut = 0.8796  # what cutting at two standard deviations leaves of one
        for name, std in (("ema.delta", 0.2), ("ema.alpha", 0.2), ("ema.gamma", 1.0), ("ema.omega", 1.0), ("skip_proj.weight", 0.02),
                          ("attention.in_proj.weight", 0.02), ("attention.out_proj.weight", 0.02), ("attention.qk_gamma", 0.02),
                          ("attention.position.table", 0.02), ("router.proj.weight", 0.02)):
            value = layer.get_parameter(name).detach()
            # The spread of a spread estimated from n numbers is below 1 / sqrt(2 n); six of them.
            self.assertLess(abs(value.std().item() / (std * cut) - 1), 6 / math.sqrt(2 * value.numel()), name)
            self.assertLess(abs(value.mean().item()), 6 * std / math.sqrt(value.numel()), name)
            self.assertLessEqual(value.abs().max().item(), 2 * std, name)
        signs = 1 - 2 * (torch.arange(16) % 2)
        self.assertLessEqual((layer.ema.beta - signs).abs().max().item(), 0.04)
        for name in ("skip_proj.bias", "attention.in_proj.bias", "attention.out_proj.bias", "attention.qk_beta", "router.proj.bias"):
            self.assertEqual(layer.get_parameter(name).abs().max().item(), 0, name)
        self.assertAlmostEqual(layer.router.log_temperature.item(), math.log(0.5 * 8), places=6)

    def test_published_names_there_and_back(self):
        for options in ({}, dict(causal=True, norm="scalenorm", position="rotary"), dict(layer="seqboat-full", norm="batchnorm", position="local")):
            layer, x = make_layer(1, **options), torch.randn(2, 9, 16)
            layer(x)  # moves the statistics of batch norm
            theirs = official(layer)
            before = dict(theirs)
            for form in (theirs, {name.replace("move.", "ssm."): value for name, value in theirs.items()}):
                other = make_layer(2, **options)
                self.assertEqual(str(other.load_state_dict(form)), "<All keys matched successfully>")
                for name, value in layer.state_dict().items():
                    self.assertTrue(torch.equal(other.state_dict()[name], value), name)
                self.assertTrue(torch.equal(other.eval()(x), layer.eval()(x)))
            self.assertEqual(theirs, before)  # the given dict stays as it was
            # Inside another module, and in our own names.
            stack = torch.nn.ModuleList([make_layer(3, **options), make_layer(4, **options)])
            stack.load_state_dict({**{f"0.{name}": v for name, v in theirs.items()}, **{f"1.{name}": v for name, v in layer.state_dict().items()}})
            self.assertTrue(torch.equal(stack[0].eval()(x), stack[1].eval()(x)))

    def test_what_does_not_fit_is_named(self):
        layer = make_layer()
        theirs = official(layer)
        for change, message in (
                ({"move.zeta": torch.zeros(1)}, 'Unexpected key.*"ema.zeta"'),
                ({"attention.qk_gamma": torch.zeros(2, 6)}, 'Unexpected key.*"gamma"'),
                ({"hx_proj.weight": torch.zeros(16, 16)}, "size mismatch for skip_proj.weight"),
                ({"mx_proj.bias": None}, 'Missing key.*"attention.in_proj.bias"')):
            given = {name: value for name, value in {**theirs, **change}.items() if value is not None}
            with self.assertRaisesRegex(RuntimeError, message):
                layer.load_state_dict(given)
        with self.assertRaisesRegex(RuntimeError, 'Unexpected key.*"router'):
            make_layer(layer="seqboat-full").load_state_dict(theirs)


class Packing(unittest.TestCase):
    def test_packed_is_padded_is_one_by_one(self):
        lengths = (9, 0, 31, 1, 70)
        for causal in (True, False):
            for name, options in CAUSAL.items():
                with self.subTest(layer=name, causal=causal):
                    layer = make_layer(causal=causal, **options).eval()
                    rows = torch.randn(sum(lengths), 16)
                    packed = layer(rows, offsets(lengths))
                    self.assertTrue(torch.equal(layer(rows, offsets(lengths, torch.int32)), packed))
                    apart = [layer(part[None])[0] for part in rows.split(lengths) if len(part)]
                    self.assertTrue(torch.equal(torch.cat(apart), packed))
                    if causal:  # what comes after a sequence's end is the future to it
                        padded = torch.randn(len(lengths), max(lengths), 16)
                        for row, part in zip(padded, rows.split(lengths)):
                            row[: len(part)] = part
                        y = layer(padded)
                        self.assertTrue(torch.equal(torch.cat([row[:length] for row, length in zip(y, lengths)]), packed))
                    equal = rows[:100].view(4, 25, 16)
                    self.assertTrue(torch.equal(layer(equal).view(100, 16), layer(rows[:100], offsets([25] * 4))))
                    strided = equal.transpose(0, 1).contiguous().transpose(0, 1)
                    self.assertTrue(torch.equal(layer(strided), layer(equal)))

    def test_nothing(self):
        layer = make_layer()
        self.assertEqual(layer(torch.zeros(0, 16), torch.zeros(1, dtype=torch.int64)).shape, (0, 16))
        self.assertEqual(layer(torch.zeros(0, 5, 16)).shape, (0, 5, 16))
        self.assertEqual(layer(torch.zeros(3, 0, 16)).shape, (3, 0, 16))


class Streaming(unittest.TestCase):
    def in_chunks(self, layer, x, cuts):
        """x (B, T, D) through the state, cut at the given times."""
        state, parts = None, []
        for begin, end in zip([0, *cuts], [*cuts, x.shape[1]]):
            y, state = layer(x[:, begin:end], state=state, return_state=True)
            parts.append(y)
        return torch.cat(parts, 1), state

    def test_whole_is_chunks_is_token_by_token(self):
        for name, options in CAUSAL.items():
            with self.subTest(layer=name):
                layer = make_layer(causal=True, **options).eval()
                x = torch.randn(2, 230, 16)
                whole = layer(x)
                again, final = layer(x, return_state=True)
                self.assertTrue(torch.equal(again, whole))
                for cuts in ([100], [1, 2, 64, 64, 65, 200], list(range(1, 230))):
                    y, state = self.in_chunks(layer, x, cuts)
                    self.assertTrue(torch.equal(y, whole))
                    for field, got, want in zip(state._fields, state, final):
                        self.assertTrue(got is want or torch.equal(got, want), field)
                self.assertLessEqual(len(final.k), 2 * (5 + 63))
                self.assertEqual(final.time.tolist(), [230, 230])

    def test_chunks_of_unequal_length(self):
        layer = make_layer(causal=True, truncation=6).eval()
        sequences = [torch.randn(length, 16) for length in (40, 3, 90)]
        whole = layer(torch.cat(sequences), offsets([40, 3, 90]))
        done, parts, state = [0, 0, 0], [[], [], []], None
        for lengths in ((7, 0, 80), (0, 3, 1), (33, 0, 9)):
            chunk = [sequence[begin : begin + length] for sequence, begin, length in zip(sequences, done, lengths)]
            y, state = layer(torch.cat(chunk), offsets(lengths, torch.int32), state, True)
            done = [begin + length for begin, length in zip(done, lengths)]
            for part, piece in zip(parts, y.split(lengths)):
                part.append(piece)
        self.assertTrue(torch.equal(torch.cat([piece for part in parts for piece in part]), whole))
        self.assertEqual(state.time.tolist(), [40, 3, 90])

    def test_a_state_is_a_value(self):
        layer, x = make_layer(causal=True).eval(), torch.randn(1, 50, 16)
        _, state = layer(x[:, :20], return_state=True)
        before = copy.deepcopy(state.detach())
        first, second = (layer(x[:, 20:], state=state) for _ in range(2))
        self.assertTrue(torch.equal(first, second))
        for field, got, want in zip(state._fields, state, before):
            self.assertTrue(got is want or torch.equal(got, want), field)

    def test_gradients_flow_through_the_state(self):
        for name, options in CAUSAL.items():
            with self.subTest(layer=name):
                layer = make_layer(dtype=torch.float64, causal=True, **options).eval()
                x = torch.randn(2, 90, 16, dtype=torch.float64, requires_grad=True)
                whole = gradients(layer, layer(x), x)
                for cuts in ([30, 31, 70], list(range(10, 90, 10))):
                    y, _ = self.in_chunks(layer, x, cuts)
                    # Sums of some hundred terms, a few of their roundings each.
                    self.assertLess(largest_error(gradients(layer, y, x), whole), 1000 * 2**-52)
        layer = make_layer(causal=True).eval()
        x = torch.randn(1, 40, 16, requires_grad=True)
        _, state = layer(x[:, :30], return_state=True)
        cut, = torch.autograd.grad(layer(x[:, 30:], state=state.detach()).sum(), x)
        through, = torch.autograd.grad(layer(x[:, 30:], state=state).sum(), x)
        self.assertEqual(cut[:, :30].abs().max().item(), 0)
        self.assertGreater(through[:, :30].abs().max().item(), 0)
        self.assertTrue(torch.equal(cut[:, 30:], through[:, 30:]))


class Dropout(unittest.TestCase):
    def test_repeatable_and_new_in_every_call(self):
        for options in (dict(causal=True), {}, dict(norm="batchnorm"), dict(layer="seqboat-full")):
            layer, x = make_layer(dropout=0.3, **options), torch.randn(2, 30, 16)
            torch.manual_seed(5)
            first, second = layer(x), layer(x)
            torch.manual_seed(5)
            self.assertTrue(torch.equal(layer(x), first))
            self.assertTrue(torch.equal(layer(x), second))
            self.assertFalse(torch.equal(first, second))
            self.assertFalse(torch.equal(first[0], layer(x[:1].expand(2, -1, -1))[1]))
            evaluated = layer.eval()(x)
            torch.manual_seed(6)
            self.assertTrue(torch.equal(layer(x), evaluated))
            self.assertNotEqual(torch.rand(()).item(), torch.rand(()).item())

    def test_the_two_ways_draw_the_same(self):
        for options in (dict(causal=True), dict(causal=True, layer="seqboat-full", prenorm=True)):
            layer, x = make_layer(dropout=0.4, **options), torch.randn(2, 300, 16)
            torch.manual_seed(7)
            fused = layer(x)
            torch.manual_seed(7)
            self.assertTrue(torch.equal(layer(x, return_state=True)[0], fused))

    def test_as_much_as_asked(self):
        """With a unit that says nothing, an EMA that looks at x alone and skip_proj = 1, y = SiLU(drop(SiLU(x)) + x)."""
        layer, x = sbt.SeqBoatLayer(16, 4, norm="batchnorm", prenorm=True, dropout=0.25), torch.randn(4, 1000, 16)
        with torch.no_grad():
            for parameter in (layer.ema.gamma, layer.attention.out_proj.weight):
                parameter.zero_()
            layer.ema.omega.fill_(1)
            layer.skip_proj.weight.copy_(torch.eye(16))
            y = layer(x)
        silu = torch.nn.functional.silu
        normed = torch.nn.functional.batch_norm(x.view(-1, 16), None, None, training=True).view(x.shape)
        with_m, without = silu(silu(normed) / 0.75 + x), silu(x)
        dropped = (y - without).abs() < (y - with_m).abs()
        self.assertLess((y - torch.where(dropped, without, with_m)).abs().max().item(), 1e-5)
        self.assertLess(abs(dropped.double().mean().item() - 0.25), 6 * math.sqrt(0.25 * 0.75 / x.numel()))


class Misuse(unittest.TestCase):
    def test_one_clear_message(self):
        layer, causal = make_layer(), make_layer(causal=True)
        x, cu = torch.randn(10, 16), torch.tensor([0, 4, 10])
        _, state = causal(x.view(2, 5, 16), return_state=True)
        for call, error, message in (
                (lambda: layer(torch.randn(2, 5, 15)), ValueError, r"x must be \(B, T, 16\) torch.float32, got \(2, 5, 15\) torch.float32"),
                (lambda: layer(x), ValueError, r"x must be \(B, T, 16\)"),
                (lambda: layer(x[None], cu), ValueError, r"x must be \(sum T, 16\)"),
                (lambda: layer(x.to(torch.int8), cu), ValueError, r"x must be \(sum T, 16\) torch.float32, got \(10, 16\) torch.int8"),
                (lambda: layer(x.double(), cu), ValueError, "float32.*float64"),
                (lambda: layer(x, torch.tensor([0, 4, 9])), RuntimeError, "cu_seqlens must go from 0 to 10, got 0 to 9"),
                (lambda: layer(x, torch.tensor([0, 4, 11])), RuntimeError, "cu_seqlens must go from 0 to 10, got 0 to 11"),
                (lambda: layer(x, torch.tensor([0, 7, 4, 10])), RuntimeError, "cu_seqlens must not decrease"),
                (lambda: causal(x, torch.tensor([0, 4, 9]), return_state=True), RuntimeError, "cu_seqlens must go from 0 to 10, got 0 to 9"),
                (lambda: layer(x, cu, state=state), ValueError, "only a causal layer with a window_size carries a state"),
                (lambda: layer(x, cu, return_state=True), ValueError, "only a causal layer"),
                (lambda: make_layer(causal=True, window_size=0)(x, cu, return_state=True), ValueError, "only a causal layer with a window_size"),
                (lambda: causal(x[None], state=state), ValueError, "the state is one of 2 sequences, the batch has 1"),
                (lambda: make_layer(causal=True, d_state=3)(x, cu, state=state), RuntimeError, r"ema_scan: state must be \(2, 16, 3\)"),
                (lambda: sbt.SeqBoatLayer(16, 4, attention="tanh"), ValueError, "attention must be one of softmax relu2 laplace, got 'tanh'"),
                (lambda: sbt.SeqBoatLayer(16, 4, position="t5"), ValueError, "position must be one of simple local rotary, got 't5'"),
                (lambda: sbt.SeqBoatLayer(16, 4, norm="groupnorm"), ValueError, "norm must be one of"),
                (lambda: sbt.SeqBoatLayer(16, 4, layer="mega"), ValueError, "layer must be one of"),
                (lambda: sbt.SeqBoatLayer(16, 4, position="local"), ValueError, "position='local' needs one"),
                (lambda: sbt.SeqBoatLayer(16, 5, position="rotary"), ValueError, "an even d_attn"),
                (lambda: sbt.SeqBoatLayer(16, 4, window_size=-1), ValueError, "window_size must not be negative")):
            with self.subTest(message=message), self.assertRaisesRegex(error, message) as raised:
                call()
            self.assertEqual(str(raised.exception).count("\n"), 0, raised.exception)

    def test_no_library(self):
        junk = pathlib.Path(__file__)
        absent = "nowhere/lib.so"
        for named, words in ((absent, ["no operator library", absent, "SEQBOAT_OPS_LIBRARY"]), (junk, ["does not load", junk.name])):
            done = subprocess.run([sys.executable, "-B", "-c", "import seqboat_torch"], capture_output=True, text=True, cwd=SOURCE_DIR / "python",
                                  env={**os.environ, "SEQBOAT_OPS_LIBRARY": str(named)})
            self.assertEqual(done.returncode, 1)
            line = done.stderr.splitlines()[-1]
            for word in ("ImportError", *words):
                self.assertIn(word, line)


if __name__ == "__main__":
    unittest.main()
