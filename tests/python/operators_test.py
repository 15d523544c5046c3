"""Every operator of the library through torch.library.opcheck: schema, registrations, shapes under a tracer, gradients under AOTAutograd."""

import unittest
import warnings

import support  # noqa: F401
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.library import opcheck

OPS = torch.ops.seqboat
TOKENS, DIM, STATES, Z, H = 10, 4, 3, 4, 5
CU = torch.tensor([0, 3, 3, 10])
IDS, TIMES = torch.tensor([0, 0, 0, 2, 2, 2, 2, 2, 2, 2]), torch.tensor([0, 1, 2, 0, 1, 2, 3, 4, 5, 6])
ACTIVE = torch.tensor([1, 0, 1, 0, 0, 1, 1, 0, 1, 1], dtype=torch.uint8)
INDEX = ACTIVE.nonzero()[:, 0]
K, ACTIVE_TIMES, ACTIVE_CU = len(INDEX), TIMES[INDEX], torch.tensor([0, 2, 2, 6])
# Where opcheck's own sum of the outputs fails, since the first is one of integers: its test of gradients is done by hand below.
INTEGERS_FIRST = {"router"}
NO_GRADIENT = {"active_index", "batch_norm_stats"}


def layer_arguments(r, rates, router, norm, prenorm, causal, position, function, dropout, forced, keep_inputs_only):
    rows = DIM if causal else 2 * DIM
    batch = norm == "batchnorm"
    return (
        r(TOKENS, DIM), CU, TIMES, IDS, ACTIVE if forced else None, r(1 if norm == "scalenorm" else DIM),
        r(DIM) if norm in ("layernorm", "batchnorm") else None, r(DIM) if batch else None, rates(DIM) if batch else None, rates(rows, STATES),
        r(rows, STATES), r(DIM),
        r(2, DIM) if router else None, r(2) if router else None, r(1) if router else None, r(DIM, DIM), r(DIM), r(Z + 2 * H, DIM), r(Z + 2 * H),
        r(2, Z), r(2, Z), None if position == "rotary" else r(11), r(DIM, H), r(DIM), norm, prenorm, batch, 1e-5, causal, 0, 2, position, function,
        0.0, dropout, [1, 2, 3, 4, 0], keep_inputs_only)


def norm_arguments(r, rates, norm):
    batch = norm == "batchnorm"
    return (r(1 if norm == "scalenorm" else DIM), r(DIM) if norm in ("layernorm", "batchnorm") else None, r(DIM) if batch else None,
            rates(DIM) if batch else None)


def mega_arguments(r, rates, norm, prenorm, causal, chunk, function, activation, dropout, keep_inputs_only):
    rows, width = DIM if causal else 2 * DIM, Z + H + 2 * DIM
    return (
        r(TOKENS, DIM), CU, TIMES, IDS, *norm_arguments(r, rates, norm), rates(rows, STATES), r(rows, STATES), r(DIM), r(H, DIM), r(H),
        r(width, DIM), r(width), r(2, Z), r(2, Z), r(13), r(DIM, H), r(DIM), norm, prenorm, norm == "batchnorm", 1e-5, causal, 0, chunk, function,
        activation, dropout, [1, 2, 3, 4, 0], keep_inputs_only)


def feed_forward_arguments(r, rates, norm, prenorm, dropout, keep_inputs_only):
    return (r(TOKENS, DIM), TIMES, IDS, *norm_arguments(r, rates, norm), r(6, DIM), r(6), r(DIM, 6), r(DIM), norm, prenorm, norm == "batchnorm", 1e-5,
            dropout, [1, 2, 3, 4, 0], keep_inputs_only)


def transformer_arguments(r, rates, norm, heads, window, causal, dropout, keep_inputs_only):
    return (r(TOKENS, DIM), CU, TIMES, IDS, *norm_arguments(r, rates, norm), r(3 * DIM, DIM), r(3 * DIM), r(DIM, DIM), r(DIM), norm,
            norm == "batchnorm", 1e-5, heads, window, causal, dropout, [1, 2, 3, 4, 0], keep_inputs_only)


def samples(dtype):
    """(operator, arguments): each operator at least once, with what is optional given and not."""
    def r(*shape):
        return torch.randn(*shape, dtype=dtype)

    def rates(*shape):
        return 0.1 + 0.8 * torch.rand(*shape, dtype=dtype)

    x = r(TOKENS, DIM)
    yield "activation", (r(5, 4), "silu")
    yield "_activation_backward", (r(5, 4), r(5, 4), "gelu")
    yield "active_index", (ACTIVE, CU)
    yield "compress", (x, ACTIVE, INDEX)
    yield "extract", (r(K, DIM), ACTIVE, INDEX)
    yield "ema_scan", (x, CU, rates(DIM, STATES), r(DIM, STATES), r(DIM))
    yield "ema_scan", (x, CU, rates(2 * DIM, STATES), r(2 * DIM, STATES), r(DIM), 0, True)
    yield "ema_scan", (x, CU, rates(DIM, STATES), r(DIM, STATES), r(DIM), 2, False, r(3, DIM, STATES), r(3, 2, DIM))
    yield "_ema_scan_backward", (x, None, x, CU, rates(DIM, STATES), r(DIM, STATES), r(DIM), 0, False, None, None)
    yield "_ema_scan_backward", (
        x, r(3, DIM, STATES), x, CU, rates(DIM, STATES), r(DIM, STATES), r(DIM), 2, False, r(3, DIM, STATES), r(3, 2, DIM))
    yield "s4d_scan", (x, CU, rates(DIM, STATES, 2) / 2, r(DIM, STATES, 2), r(DIM))
    yield "s4d_scan", (x, CU, rates(2 * DIM, STATES, 2) / 2, r(2 * DIM, STATES, 2), r(DIM), 0, True)
    yield "s4d_scan", (x, CU, rates(DIM, STATES, 2) / 2, r(DIM, STATES, 2), r(DIM), 2, False, r(3, DIM, STATES, 2), r(3, 2, DIM))
    yield "_s4d_scan_backward", (x, None, x, CU, rates(DIM, STATES, 2) / 2, r(DIM, STATES, 2), r(DIM), 0, False, None, None)
    yield "_s4d_scan_backward", (
        x, r(3, DIM, STATES, 2), x, CU, rates(DIM, STATES, 2) / 2, r(DIM, STATES, 2), r(DIM), 2, False, r(3, DIM, STATES, 2), r(3, 2, DIM))
    for bias in (r(5), None):
        yield "linear", (x, r(5, DIM), bias)
        yield "_linear_backward", (r(TOKENS, 5), x, r(5, DIM), [bias is None, True, bias is not None])
    for kind, weight, bias in (("layernorm", r(DIM), r(DIM)), ("scalenorm", r(1), None), ("rmsnorm", None, None)):
        yield "row_norm", (x, weight, bias, kind, 1e-5)
        yield "_row_norm_backward", (r(TOKENS, DIM), x, weight, r(TOKENS if bias is not None else 0), rates(TOKENS), kind, bias is not None)
    yield "batch_norm_stats", (x,)
    for weight in (r(DIM), None):
        yield "batch_norm", (x, weight, weight, r(DIM), rates(DIM), True, 1e-5)
        yield "_batch_norm_backward", (r(TOKENS, DIM), x, weight, r(DIM), rates(DIM), True, 1e-5, weight is not None)
    for forced in (ACTIVE, None):
        yield "router", (r(TOKENS, 2), r(1), 0.1, forced)
    yield "_router_backward", (r(TOKENS), None, r(TOKENS, 2), r(1), 0.1, ACTIVE)
    yield "segment_sum", (x, CU, True)
    yield "_segment_sum_backward", (r(3, DIM), CU, True, TOKENS)
    yield "embedding", (r(7, DIM), torch.arange(TOKENS) % 7)
    yield "_embedding_backward", (x, torch.arange(TOKENS) % 7, 7)
    yield "dropout", (x, 0.3, 1, 2, 3, 4, 0, IDS, TIMES)
    yield "cross_entropy_sum", (r(TOKENS, 5), torch.arange(TOKENS) % 5)
    yield "_cross_entropy_backward", (r(1), r(TOKENS, 5), torch.arange(TOKENS) % 5)
    yield "rotary", (x, TIMES)
    for table, bias, window, causal, function in ((r(9), "simple", 2, True, "softmax"), (r(11), "local", 2, False, "relu2"),
                                                  (None, "none", -1, False, "laplace")):
        attention = (r(K, Z), r(K, Z), r(K, H), ACTIVE_TIMES, ACTIVE_CU, table, bias, window, causal, function)
        yield "window_attention", attention
        yield "_window_attention_backward", (r(K, H), *attention, r(K, H), r(K if function == "softmax" else 0))
    for options in ((True, "layernorm", False, True, "simple", "softmax", 0.0, False, False),
                    (True, "scalenorm", True, False, "local", "relu2", 0.2, False, True),
                    (False, "rmsnorm", True, True, "rotary", "laplace", 0.1, False, False),
                    (True, "batchnorm", True, True, "simple", "softmax", 0.0, True, False)):
        arguments = layer_arguments(r, rates, *options)
        yield "seqboat_layer", arguments
        yield "_seqboat_layer_forward", arguments
        _, active, probability, *kept = OPS._seqboat_layer_forward(*arguments)
        yield "_seqboat_layer_backward", (r(TOKENS, DIM), r(TOKENS) if len(probability) else None, active, *kept, *arguments)
    fused = [("mega_layer", mega_arguments(r, rates, *options)) for options in (
        ("layernorm", False, False, 3, "softmax", "silu", 0.0, False), ("scalenorm", True, True, -1, "laplace", "gelu", 0.2, True),
        ("batchnorm", True, False, 4, "relu2", "silu", 0.1, False))]
    fused += [("feed_forward", feed_forward_arguments(r, rates, *options)) for options in (
        ("layernorm", False, 0.1, False), ("batchnorm", True, 0.0, True))]
    fused += [("transformer_layer", transformer_arguments(r, rates, *options)) for options in (
        ("scalenorm", 1, 3, True, 0.2, True), ("batchnorm", 2, -1, False, 0.1, False))]
    for name, arguments in fused:
        yield name, arguments
        yield f"_{name}_forward", arguments
        yield f"_{name}_backward", (r(TOKENS, DIM), getattr(OPS, f"_{name}_forward")(*arguments)[1], *arguments)


def floating(t):
    return isinstance(t, torch.Tensor) and t.is_floating_point()


def with_gradients(name, arguments):
    """The arguments as leaves that ask for a gradient, but what has none: integers and the statistics of batch norm."""
    names = [argument.name for argument in getattr(OPS, name).default._schema.arguments]
    graded = lambda key, t: floating(t) and key not in ("mean", "var", "norm_mean", "norm_var")
    return tuple(t.clone().requires_grad_() if graded(key, t) else t for key, t in zip(names, arguments))


def strided(arguments):
    """The same numbers, matrices column by column in memory."""
    return tuple(t.t().contiguous().t() if floating(t) and t.dim() == 2 else t for t in arguments)


def leaves(arguments):
    return [t for t in arguments if isinstance(t, torch.Tensor) and t.requires_grad]


class Operators(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(3)

    def test_opcheck(self):
        seen = set()
        for dtype in (torch.float32, torch.float64):
            for name, arguments in samples(dtype):
                with self.subTest(operator=name, dtype=dtype):
                    op = getattr(OPS, name).default
                    opcheck(op, arguments)
                    if dtype == torch.float32:
                        opcheck(op, strided(arguments), test_utils=("test_schema", "test_faketensor"))
                    if not name.startswith("_") and name not in NO_GRADIENT | INTEGERS_FIRST:
                        opcheck(op, with_gradients(name, arguments))
                    seen.add(name)
        everything = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("seqboat::")}
        self.assertEqual(seen, everything)

    def test_shapes_that_depend_on_the_data(self):
        """opcheck passes over these: what is symbolic must be what the data decide, and the rest what the kernel gives."""
        compared = 0
        for name, arguments in samples(torch.float32):
            if name not in ("active_index", "_seqboat_layer_forward"):
                continue
            op = getattr(OPS, name)
            names = [argument.name for argument in op.default._schema.arguments]
            given = dict(zip(names, arguments))
            chooses = name == "active_index" or (given["router_weight"] is not None and not given["keep_inputs_only"])
            with FakeTensorMode(shape_env=ShapeEnv()) as mode:
                fake = op(*(mode.from_tensor(t, static_shapes=True) if isinstance(t, torch.Tensor) else t for t in arguments))
            active = op(*arguments)[1].sum().item() if name != "active_index" else K
            symbolic = 0
            for got, want in zip(fake, op(*arguments), strict=True):
                self.assertEqual((got.dtype, got.dim()), (want.dtype, want.dim()))
                for size, real in zip(got.shape, want.shape):
                    symbolic += isinstance(size, torch.SymInt)
                    self.assertEqual(real, active if isinstance(size, torch.SymInt) else size)
            self.assertEqual(symbolic, (2 if name == "active_index" else 1) if chooses else 0)
            compared += 1
        self.assertEqual(compared, 5)

    def test_memory_in_another_order_changes_no_bit(self):
        for name, arguments in samples(torch.float32):
            as_list = lambda out: list(out) if isinstance(out, (tuple, list)) else [out]
            want, got = as_list(getattr(OPS, name)(*arguments)), as_list(getattr(OPS, name)(*strided(arguments)))
            for a, b in zip(got, want, strict=True):
                self.assertTrue(a is b or torch.equal(a, b), name)

    def test_gradients_of_the_router_under_a_tracer(self):
        for dtype in (torch.float32, torch.float64):
            for name, arguments in samples(dtype):
                if name in INTEGERS_FIRST:
                    arguments = with_gradients(name, arguments)
                    run = lambda *given: sum((t * t).sum() for t in getattr(OPS, name)(*given) if t.is_floating_point())
                    want = torch.autograd.grad(run(*arguments), leaves(arguments))
                    got = torch.autograd.grad(torch.compile(run, backend="aot_eager", fullgraph=True)(*arguments), leaves(arguments))
                    for a, b in zip(got, want, strict=True):
                        self.assertTrue(torch.equal(a, b))

    def test_second_derivatives_are_refused_or_right(self):
        again = {"compress", "extract", "dropout", "rotary"}  # linear, and their own adjoints
        for name, arguments in samples(torch.float64):
            if name.startswith("_") or name in NO_GRADIENT:
                continue
            arguments = with_gradients(name, arguments)
            out = getattr(OPS, name)(*arguments)
            loss = sum((t * t).sum() for t in (out if isinstance(out, tuple) else (out,)) if t.requires_grad)
            with self.subTest(operator=name), warnings.catch_warnings():
                warnings.simplefilter("error")
                if name in again:
                    first = torch.autograd.grad(loss, leaves(arguments), create_graph=True)
                    # The loss is quadratic in x, so its gradient is linear in it: along x the gradient of |g|^2 / 2 is |g|^2.
                    second = torch.autograd.grad(sum((g * g).sum() for g in first) / 2, leaves(arguments))
                    along = sum((s * x).sum() for s, x in zip(second, leaves(arguments))).item()
                    self.assertAlmostEqual(along, sum((g * g).sum() for g in first).item(), places=9)
                else:
                    with self.assertRaisesRegex(RuntimeError, f"seqboat::{name}: its gradient cannot be differentiated again"):
                        torch.autograd.grad(loss, leaves(arguments), create_graph=True)


if __name__ == "__main__":
    unittest.main()
