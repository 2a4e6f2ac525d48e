"""Times in PyTorch what `tern-benches` times in Tern: the same sizes, on all cores and, where
there is one, on a GPU by CUDA.

Prints one JSON object a line: {"peer": ..., "software": false, "gpu": ..., "seconds":
{workload: seconds}}.
"""

import json
import os
import statistics
import time

import torch
from torch import nn

torch.manual_seed(1)
# The cores that this process may use, as Tern counts them.
cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
torch.set_num_threads(len(cores))


class LanguageModel(nn.Module):
    def __init__(self, vocabulary, dimension, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dimension)
        self.lstm = nn.LSTM(dimension, hidden, layers)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens):
        return self.output(self.lstm(self.embedding(tokens))[0])


def median_seconds(run, budget=4.0):
    """Median seconds of a run: two to warm up, then five at least."""
    run(), run()
    seconds = []
    begin = time.perf_counter()
    while len(seconds) < 5 or (len(seconds) < 400 and time.perf_counter() - begin < budget):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def step_seconds(device, model, inputs, targets, classes):
    """A training step by SGD; the loss is read in every step."""
    model, inputs, targets = model.to(device), inputs.to(device), targets.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = losses(model(inputs).reshape(-1, classes), targets.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.item()

    return median_seconds(step)


def language_model(device, vocabulary, dimension, hidden, layers, steps, batch):
    tokens = torch.randint(vocabulary, (steps, batch))
    targets = torch.randint(vocabulary, (steps, batch))
    model = LanguageModel(vocabulary, dimension, hidden, layers)
    return step_seconds(device, model, tokens, targets, vocabulary)


def perceptron(device):
    layers = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    inputs, targets = torch.rand(64, 784), torch.randint(10, (64,))
    return step_seconds(device, nn.Sequential(*layers), inputs, targets, 10)


def convolutions(device):
    def block(channels, outputs):
        return [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    layers = [*block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(32 * 7 * 7, 10)]
    inputs, targets = torch.rand(32, 1, 28, 28), torch.randint(10, (32,))
    return step_seconds(device, nn.Sequential(*layers), inputs, targets, 10)


def matmul(device, n, dtype=torch.float32):
    a, b = (torch.rand(n, n).to(device, dtype) for _ in range(2))
    c = torch.empty_like(a)

    def run():
        torch.mm(a, b, out=c)
        if device == "cuda":
            torch.cuda.synchronize()

    return median_seconds(run, budget=2.0)


def measure(device, name):
    seconds = {
        "char-lstm": language_model(device, 90, 8, 256, 2, 80, 10),
        "word-lm": language_model(device, 10_000, 128, 256, 1, 20, 16),
        "mlp": perceptron(device),
        "cnn": convolutions(device),
    }
    sizes = [512, 1024, 2048] + ([4096] if device == "cuda" else [])
    seconds |= {f"matmul-{n}": matmul(device, n) for n in sizes}
    if device == "cuda":
        seconds["half-4096"] = matmul(device, 4096, torch.float16)
    peer = f"PyTorch {torch.__version__}, {name}"
    print(json.dumps({"peer": peer, "software": False, "gpu": device == "cuda", "seconds": seconds}))


measure("cpu", f"CPU, {torch.get_num_threads()} threads")
if torch.cuda.is_available():
    # Products of 32-bit floats as such, as ours are.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    measure("cuda", torch.cuda.get_device_name())
