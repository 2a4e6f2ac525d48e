"""Runs in Flower's simulation the federated rounds that `tern-benches rounds` runs in Tern.

    python flower_rounds.py FOLDER

FOLDER holds what `tern-benches rounds` wrote: `job.json` (sizes, clients, rounds), the data and
the first model as raw little-endian arrays. Each round trains every client for one epoch by SGD
and takes the weighted mean (FedAvg). One actor a core, one thread an actor.

Prints one JSON object: {"peer": ..., "start": seconds from the script's start that the end of the
first round comes later than a warm round would take, "rounds": [seconds], "accuracy": [share of
correct test samples after each round]}.
Needs flwr[simulation] 1.41 or later and torch.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

# Actors import this file, too, with arguments of their own.
os.environ.setdefault("TERN_BEGIN", repr(time.time()))
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import flwr
import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

if "TERN_JOB" not in os.environ:
    os.environ["TERN_JOB"] = str(Path(sys.argv[1]).resolve())
FOLDER = Path(os.environ["TERN_JOB"])
JOB = json.loads((FOLDER / "job.json").read_text())
IGNORED = 0xFFFFFFFF


class LanguageModel(nn.Module):
    def __init__(self, vocabulary, dimension, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dimension)
        self.lstm = nn.LSTM(dimension, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens):
        return self.output(self.lstm(self.embedding(tokens))[0])


def new_model():
    sizes = JOB["sizes"]
    if JOB["kind"] == "text":
        return LanguageModel(*sizes)
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def first_model():
    """The model's tensors in the order of its state, from one file."""
    model = new_model()
    flat = torch.from_numpy(np.fromfile(FOLDER / "model", dtype="<f4"))
    at = 0
    for tensor in model.state_dict().values():
        tensor.copy_(flat[at : at + tensor.numel()].reshape(tensor.shape))
        at += tensor.numel()
    assert at == flat.numel(), "the model has another number of parameters"
    return model


def samples(part):
    """Inputs and targets of a part of the data set: rows, or windows [N, T]."""
    text = JOB["kind"] == "text"
    x = np.fromfile(FOLDER / f"{part}-x", dtype="<u4" if text else "<f4")
    y = np.fromfile(FOLDER / f"{part}-y", dtype="<u4").astype(np.int64)
    y[y == IGNORED] = -100
    x = x.reshape(-1, JOB["width"])
    if text:
        x, y = x.astype(np.int64), y.reshape(x.shape)
    return torch.from_numpy(x), torch.from_numpy(y)


class Local:
    """What an actor keeps: one model and the samples, read once."""

    cached = None

    def __init__(self):
        torch.set_num_threads(1)
        self.model = new_model()
        self.x, self.y = samples("train")
        self.loss = nn.CrossEntropyLoss()

    @classmethod
    def get(cls):
        if cls.cached is None:
            cls.cached = cls()
        return cls.cached

    def train(self, client, server_round):
        start, end = JOB["clients"][client]
        x, y = self.x[start:end], self.y[start:end]
        generator = torch.Generator().manual_seed(100_003 * server_round + client)
        order = torch.randperm(len(x), generator=generator)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=JOB["rate"])
        self.model.train()
        total = 0.0
        for rows in order.split(JOB["batch"]):
            optimizer.zero_grad(set_to_none=True)
            logits = self.model(x[rows])
            loss = self.loss(logits.reshape(-1, logits.shape[-1]), y[rows].reshape(-1))
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        return total / len(x)


client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context):
    local = Local.get()
    local.model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    client = context.node_config["partition-id"]
    loss = local.train(client, message.content["config"]["server-round"])
    start, end = JOB["clients"][client]
    content = RecordDict(
        {
            "arrays": ArrayRecord(local.model.state_dict()),
            "metrics": MetricRecord({"loss": loss, "num-examples": end - start}),
        }
    )
    return Message(content=content, reply_to=message)


class Timed(FedAvg):
    """FedAvg that notes when each round began and ended."""

    def __init__(self, **options):
        super().__init__(**options)
        self.begun, self.ended = [], []

    def configure_train(self, *args, **kwargs):
        self.begun.append(time.time())
        return super().configure_train(*args, **kwargs)

    def aggregate_train(self, *args, **kwargs):
        arrays, metrics = super().aggregate_train(*args, **kwargs)
        if arrays is None:
            raise RuntimeError("no client has trained")
        self.ended.append(time.time())
        return arrays, metrics


def accuracy(model, x, y):
    hits = count = 0
    model.eval()
    with torch.no_grad():
        for rows in torch.arange(len(x)).split(JOB["evaluation_batch"]):
            logits = model(x[rows])
            known = y[rows] >= 0
            hits += (logits.argmax(-1)[known] == y[rows][known]).sum().item()
            count += known.sum().item()
    return hits / max(count, 1)


def main():
    found = {"accuracy": []}
    tested, model = samples("test"), first_model()

    def evaluate(server_round, arrays):
        if server_round > 0:
            model.load_state_dict(arrays.to_torch_state_dict())
            found["accuracy"].append(accuracy(model, *tested))
        return MetricRecord()

    server_app = ServerApp()

    @server_app.main()
    def serve(grid: Grid, context: Context):
        clients = len(JOB["clients"])
        strategy = Timed(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=clients,
        )
        first = ArrayRecord(model.state_dict())
        strategy.start(grid, first, num_rounds=JOB["rounds"], evaluate_fn=evaluate)
        rounds = [end - begin for begin, end in zip(strategy.begun, strategy.ended)]
        first = strategy.ended[0] - float(os.environ["TERN_BEGIN"])
        found["start"] = first - statistics.median(rounds[1:] or rounds)
        found["rounds"] = rounds

    cores = JOB["threads"]
    run_simulation(
        server_app,
        client_app,
        num_supernodes=len(JOB["clients"]),
        backend_config={
            "init_args": {"num_cpus": cores, "logging_level": "error", "log_to_driver": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    vectors = torch.backends.cpu.get_cpu_capability().lower()
    peer = f"Flower {flwr.__version__}, PyTorch {torch.__version__}, {cores} actors, {vectors}"
    print(json.dumps({"peer": peer, **found}))


if __name__ == "__main__":
    # As a module: actors then import it once instead of unpickling it with every message.
    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    import flower_rounds

    flower_rounds.main()
