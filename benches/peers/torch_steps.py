"""Times in PyTorch what `tern-benches` times in Tern: the same sizes, on as many threads and,
where there is one, on a GPU by CUDA.

    python torch_steps.py THREADS

Prints {"peers": {"cpu": name, ...}}, then answers each line that it reads, {"on": "cpu",
"what": ..., "sizes": ..., "budget": seconds}, by {"seconds": [of each run]}, or by
{"seconds": null} for what it doesn't know. `what` is a kernel of Tern's with the sizes of its row,
`training` with a model's name, or `lstm` with batch × hidden × steps.
"""

import json
import re
import sys
import time
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

MOST_RUNS = 400
LEAST_RUNS = 2


class LanguageModel(nn.Module):
    def __init__(self, vocabulary, dimension, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dimension)
        self.lstm = nn.LSTM(dimension, hidden, layers)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens):
        return self.output(self.lstm(self.embedding(tokens))[0])


class Llama(nn.Module):
    """A decoder of Llama's shape, its logits by the embedding's table."""

    def __init__(self, vocabulary, width, layers, heads, groups, head, hidden, base, recompute):
        super().__init__()
        self.recompute = recompute
        self.embedding, self.head = nn.Embedding(vocabulary, width), head
        sizes = [heads, groups, groups]
        linear = lambda i, o: nn.Linear(i, o, bias=False)  # noqa: E731
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.RMSNorm(width, 1e-5),
                    "qkv": nn.ModuleList(linear(width, n * head) for n in sizes),
                    "out": linear(heads * head, width),
                    "norm2": nn.RMSNorm(width, 1e-5),
                    "gate": linear(width, hidden),
                    "up": linear(width, hidden),
                    "down": linear(hidden, width),
                }
            )
            for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width, 1e-5)
        self.rates = base ** (-torch.arange(0, head, 2) / head)

    def rotate(self, x):
        angles = torch.arange(x.shape[2], device=x.device)[:, None] * self.rates.to(x.device)
        (a, b), cosine, sine = x.chunk(2, -1), angles.cos(), angles.sin()
        return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)

    def block(self, block, x):
        normal = block["norm1"](x)
        heads = [f(normal).unflatten(-1, (-1, self.head)).transpose(1, 2) for f in block["qkv"]]
        q, k, v = self.rotate(heads[0]), self.rotate(heads[1]), heads[2]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + block["out"](y.transpose(1, 2).flatten(-2))
        normal = block["norm2"](x)
        return x + block["down"](F.silu(block["gate"](normal)) * block["up"](normal))

    def forward(self, tokens):
        x = self.embedding(tokens.t())
        for block in self.blocks:
            if self.recompute:
                x = checkpoint(self.block, block, x, use_reentrant=False)
            else:
                x = self.block(block, x)
        return F.linear(self.norm(x), self.embedding.weight).transpose(0, 1)


# Training steps by SGD; the loss is read in every step.


def step(device, model, inputs, targets, classes, precision=None):
    model, inputs, targets = model.to(device), inputs.to(device), targets.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = nn.CrossEntropyLoss()

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, precision, enabled=precision is not None):
            loss = losses(model(inputs).reshape(-1, classes), targets.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def language_model(device, vocabulary, dimension, hidden, layers, steps, batch):
    tokens = torch.randint(vocabulary, (steps, batch))
    targets = torch.randint(vocabulary, (steps, batch))
    model = LanguageModel(vocabulary, dimension, hidden, layers)
    return step(device, model, tokens, targets, vocabulary)


def perceptron(device):
    layers = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    inputs, targets = torch.rand(64, 784), torch.randint(10, (64,))
    return step(device, nn.Sequential(*layers), inputs, targets, 10)


def convolutions(device):
    def block(channels, outputs):
        return [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    layers = [*block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(32 * 7 * 7, 10)]
    inputs, targets = torch.rand(32, 1, 28, 28), torch.randint(10, (32,))
    return step(device, nn.Sequential(*layers), inputs, targets, 10)


def llama(device, vocabulary, *sizes, steps, batch, precision):
    tokens = torch.randint(vocabulary, (steps, batch))
    targets = torch.randint(vocabulary, (steps, batch))
    return step(device, Llama(vocabulary, *sizes), tokens, targets, vocabulary, precision)


def smollm2(device, batch, recompute=False, precision=None):
    sizes = 49_152, 576, 30, 9, 3, 64, 1536, 1e5, recompute
    return llama(device, *sizes, steps=128, batch=batch, precision=precision)


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        convolution = lambda i, size, stride: nn.Conv2d(  # noqa: E731
            i, outputs, size, stride, padding=size // 2, bias=False
        )
        self.main = nn.Sequential(
            convolution(inputs, 3, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            convolution(outputs, 3, 1),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = nn.Sequential(convolution(inputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.main(x) + self.shortcut(x))


def resnet18(device, side, classes, batch):
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for outputs in (64, 128, 256, 512):
        for _ in range(2):
            stride = 2 if outputs != inputs else 1
            layers.append(BasicBlock(inputs, outputs, stride))
            inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]
    images, targets = torch.rand(batch, 3, side, side), torch.randint(classes, (batch,))
    return step(device, nn.Sequential(*layers), images, targets, classes)


MODELS = {
    "smollm2-135m": lambda device: smollm2(device, 1),
    "smollm2-135m-batch-8": lambda device: smollm2(device, 8),
    "smollm2-135m-recomputed": lambda device: smollm2(device, 8, recompute=True),
    "smollm2-135m-bf16": lambda device: smollm2(device, 1, precision=torch.bfloat16),
    "resnet-18": lambda device: resnet18(device, 64, 1000, 8),
    "char-lstm": lambda device: language_model(device, 90, 8, 256, 2, 80, 10),
    "word-lm": lambda device: language_model(device, 10_000, 128, 256, 1, 20, 16),
    "mlp": perceptron,
    "cnn": convolutions,
}


def training(device, sizes):
    return MODELS[sizes](device)


def lstm(device, sizes):
    """Forward and backward of a layer, its outputs' gradient all ones; no optimizer."""
    batch, hidden, steps, *projection = numbers(sizes)
    both = "both directions" in sizes
    layer = nn.LSTM(hidden, hidden, proj_size=sum(projection), bidirectional=both).to(device)
    x = torch.rand(steps, batch, hidden, device=device) - 0.5
    ones = torch.ones(steps, batch, (sum(projection) or hidden) * (1 + both), device=device)

    def run():
        layer.zero_grad(set_to_none=True)
        layer(x)[0].backward(ones)

    return run


# Kernels, by the names and sizes of their rows. Results go to memory that is there, as in Tern,
# where PyTorch can do that.


def numbers(sizes):
    """The numbers of a label: `3 of 4 × 5` gives 3, 4, 5, `16 Mi` 2^24 and `0.5 Mi` 2^19."""
    found = re.findall(r"(\d+(?:\.\d+)?)( Mi)?", sizes)
    return [int(float(n) * 2**20) if mebi else int(n) for n, mebi in found]


def noise(device, *shape):
    return torch.rand(*shape, device=device) * 2 - 1


def product(device, sizes, form, dtype=torch.float32):
    m, n, k = numbers(sizes)
    a = noise(device, *((k, m) if form == "tn" else (m, k))).to(dtype)
    b = noise(device, *((n, k) if form == "nt" else (k, n))).to(dtype)
    left = a.t() if form == "tn" else a
    right = b.t() if form == "nt" else b
    c = torch.empty(m, n, device=device, dtype=dtype)
    return lambda: torch.mm(left, right, out=c)


def product_of_halves(device, sizes):
    # On processors PyTorch's halves are a storage format.
    return product(device, sizes, "nt", torch.float16) if device == "cuda" else None


def activation(device, sizes):
    x = noise(device, *numbers(sizes))
    y = torch.empty_like(x)
    kind = sizes.split(",")[0].lower()
    if kind == "relu":
        return lambda: torch.clamp_min(x, 0, out=y)
    if kind.startswith("gelu"):
        form = "tanh" if kind == "gelutanh" else "none"
        return lambda: torch.ops.aten.gelu.out(x, approximate=form, out=y)
    if kind == "silu":
        return lambda: torch.ops.aten.silu.out(x, out=y)
    function = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}[kind]
    return lambda: function(x, out=y)


def attention(device, sizes):
    positions, heads, group, head = numbers(sizes)
    q = noise(device, 1, heads, positions, head)
    k, v = noise(device, 2, 1, heads // group, positions, head)
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def swiglu(device, sizes):
    gate, up = noise(device, 2, *numbers(sizes))
    return lambda: F.silu(gate) * up


def scale(device, sizes):
    x = noise(device, *numbers(sizes))
    y = torch.empty_like(x)
    return lambda: torch.mul(x, 0.5, out=y)


def total(device, sizes):
    x = noise(device, *numbers(sizes))
    return lambda: torch.sum(x)


def columns(device, sizes):
    x = noise(device, *numbers(sizes))
    y = torch.empty(x.shape[1], device=device)
    return lambda: torch.sum(x, dim=0, out=y)


def layer_norm(device, sizes):
    rows, width = numbers(sizes)
    x, gamma, beta = noise(device, rows, width), noise(device, width), noise(device, width)
    return lambda: torch.native_layer_norm(x, [width], gamma, beta, 1e-5)


def rms_norm(device, sizes):
    rows, width = numbers(sizes)
    x, weight = noise(device, rows, width), noise(device, width)
    return lambda: torch.rms_norm(x, [width], weight, 1e-5)


def cross_entropy(device, sizes):
    rows, classes = numbers(sizes)
    x, targets = noise(device, rows, classes), torch.randint(classes, (rows,), device=device)
    return lambda: F.cross_entropy(x, targets, reduction="none")


def cross_entropy_backward(device, sizes):
    rows, classes = numbers(sizes)
    x, targets = noise(device, rows, classes), torch.randint(classes, (rows,), device=device)
    x.requires_grad_()
    loss = F.cross_entropy(x, targets)
    return lambda: torch.autograd.grad(loss, x, retain_graph=True)


def gather(device, sizes):
    n, vocabulary, width = numbers(sizes)
    table, tokens = noise(device, vocabulary, width), torch.randint(vocabulary, (n,), device=device)
    y = torch.empty(n, width, device=device)
    return lambda: torch.index_select(table, 0, tokens, out=y)


def convolution(device, sizes, part):
    batch, channels, height, width, filters, kernel, _ = numbers(sizes)
    x = noise(device, batch, channels, height, width)
    w, b = noise(device, filters, channels, kernel, kernel), noise(device, filters)
    options = [[1, 1], [kernel // 2] * 2, [1, 1], False, [0, 0], 1]
    if part == "forward":
        return lambda: torch.ops.aten.convolution(x, w, b, *options)
    dy = torch.ones_like(torch.ops.aten.convolution(x, w, b, *options))
    wanted = [part == "input", part == "weight", False]
    return lambda: torch.ops.aten.convolution_backward(dy, x, w, [filters], *options, wanted)


def optimizer(device, sizes, make):
    parameter = nn.Parameter(noise(device, *numbers(sizes)))
    parameter.grad = noise(device, *numbers(sizes))
    # The fastest that PyTorch has: one pass over all vectors.
    return make([parameter]).step


KERNELS = {
    "training": training,
    "lstm": lstm,
    "matmul/nn": lambda d, s: product(d, s, "nn"),
    "matmul/nt": lambda d, s: product(d, s, "nt"),
    "matmul/tn": lambda d, s: product(d, s, "tn"),
    "half/nt": product_of_halves,
    "pointwise/activation_forward": activation,
    "pointwise/swiglu_forward": swiglu,
    "attention/forward": attention,
    "pointwise/scale": scale,
    "reduce/sum": total,
    "reduce/columns": columns,
    "normalize/layer_norm_forward": layer_norm,
    "normalize/rms_norm_forward": rms_norm,
    "loss/softmax_cross_entropy_forward": cross_entropy,
    "loss/softmax_cross_entropy_backward": cross_entropy_backward,
    "embedding/gather": gather,
    "convolution/forward": lambda d, s: convolution(d, s, "forward"),
    "convolution/input_backward": lambda d, s: convolution(d, s, "input"),
    "convolution/weight_partial": lambda d, s: convolution(d, s, "weight"),
    "optimizer/sgd_plain": lambda d, s: optimizer(
        d, s, lambda p: torch.optim.SGD(p, lr=1e-3, fused=True)
    ),
    "optimizer/sgd": lambda d, s: optimizer(
        d, s, lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True)
    ),
    "optimizer/adam": lambda d, s: optimizer(
        d, s, lambda p: torch.optim.Adam(p, lr=1e-3, fused=True)
    ),
}
# What needs autograd; the others run without it.
GRADIENTS = {"training", "lstm", "loss/softmax_cross_entropy_backward"}


@lru_cache(maxsize=1)
def made(device, what, sizes):
    """A workload, kept for its next turn, warmed up; `None` for what isn't known."""
    torch.manual_seed(1)
    run = KERNELS[what](device, sizes) if what in KERNELS else None
    for _ in range(2 if run else 0):
        run()
    return run


def seconds(device, what, sizes, budget):
    with torch.set_grad_enabled(what in GRADIENTS):
        run = made(device, what, sizes)
        if run is None:
            return None
        taken = []
        begin = time.perf_counter()
        while len(taken) < LEAST_RUNS or (
            len(taken) < MOST_RUNS and time.perf_counter() - begin < budget
        ):
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        return taken


def say(answer):
    print(json.dumps(answer), flush=True)


def main():
    threads = int(sys.argv[1])
    torch.set_num_threads(threads)
    vectors = torch.backends.cpu.get_cpu_capability().lower()
    peers = {"cpu": f"PyTorch {torch.__version__}, CPU, {threads} threads, {vectors}"}
    if torch.cuda.is_available():
        # Products of 32-bit floats as such, as ours are.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        peers["cuda"] = f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}"
    say({"peers": peers})
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        where = asked["on"]
        known = where in peers
        answer = seconds(where, asked["what"], asked["sizes"], asked["budget"]) if known else None
        say({"seconds": answer})


main()
