"""Times in PyTorch what `tern-benches step` times in Tern: the same sizes, two threads.

Prints one JSON object: {"peer": ..., "software": false, "seconds": {workload: seconds}}.
"""

import json
import os
import statistics
import time

import torch
from torch import nn

torch.manual_seed(1)
torch.set_num_threads(min(2, os.cpu_count() or 1))


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


def step_seconds(model, inputs, targets, classes):
    """A training step by SGD; the loss is read in every step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = losses(model(inputs).reshape(-1, classes), targets.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.item()

    return median_seconds(step)


def language_model(vocabulary, dimension, hidden, layers, steps, batch):
    tokens = torch.randint(vocabulary, (steps, batch))
    targets = torch.randint(vocabulary, (steps, batch))
    model = LanguageModel(vocabulary, dimension, hidden, layers)
    return step_seconds(model, tokens, targets, vocabulary)


def perceptron():
    layers = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    return step_seconds(nn.Sequential(*layers), torch.rand(64, 784), torch.randint(10, (64,)), 10)


def matmul(n):
    a, b, c = torch.rand(n, n), torch.rand(n, n), torch.empty(n, n)
    return median_seconds(lambda: torch.mm(a, b, out=c), budget=2.0)


print(
    json.dumps(
        {
            "peer": f"PyTorch {torch.__version__}, CPU, {torch.get_num_threads()} threads",
            "software": False,
            "seconds": {
                "char-lstm": language_model(90, 8, 256, 2, 80, 10),
                "word-lm": language_model(10_000, 128, 256, 1, 20, 16),
                "mlp": perceptron(),
                "matmul-512": matmul(512),
                "matmul-1024": matmul(1024),
            },
        }
    )
)
