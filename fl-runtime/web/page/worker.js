// What computes: in a thread of its own, so that the page stays alive. It is asked by messages
// `{ id, call, args }`, answers with `{ id, value }` or `{ id, error }`, and tells in between what
// it does.

import init, { Client, Device, Model, Samples, bench, encode } from "./tern.js";

const loaded = init();
let device = null;
let client = null;
let task = null;
/** Small models answer at once on the CPU. */
let cpu = null;
/** The model that suggests, until training has made another. */
let reader = null;

async function open(which) {
    device ??= await Device.open(which);
    return device;
}

function told(event) {
    if (event.event === "trained") forgetReader();
    postMessage({ event });
}

function forgetReader() {
    reader?.free();
    reader = null;
}

/** A model that is stored, or a new one. */
async function read(folder, name) {
    if (reader === null) {
        cpu ??= await Device.open("cpu");
        const model = new Model(cpu, task.model.layers, 1);
        const file = await Client.stored(folder, name);
        if (file !== undefined) await model.load(file);
        reader = model;
    }
    return reader;
}

/** Characters by the tokens that stand for them: those of ASCII and of a text. */
function characters(text) {
    const ascii = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i));
    return new Map(["\n", ...ascii, ...text].map((c) => [encode(task, c)[0], c]));
}

const calls = {
    async bench(which, options) {
        return bench(await Device.open(which), options, told);
    },

    /** Registers at a server and says what it asks for, and what this is. */
    async meet(options, which) {
        client = await Client.open(options, told);
        forgetReader();
        task = await client.task();
        await open(which);
        return { task, id: client.id, device: device.name, kind: device.kind };
    },

    /** Takes part with a text until the run is over. */
    async join(text, steps) {
        const vocabulary = task.model.layers.input.tokens.vocabulary;
        const samples = await Samples.text(device, encode(task, text), vocabulary, steps);
        const outcome = await client.run(device, samples);
        return outcome.finished;
    },

    /** Whether a client may take part now. */
    allow(allowed) {
        client.allowed = allowed;
    },

    /** The ways in which a text may go on, by a model that is stored or a new one. */
    async suggest(folder, name, text, count, ends, most) {
        const model = await read(folder, name);
        const found = await model.suggest(encode(task, text), count, encode(task, ends), most);
        const known = characters(text);
        return found.map((tokens) => [...tokens].map((token) => known.get(token) ?? "?").join(""));
    },

    async forget(folder) {
        client?.free();
        client = null;
        forgetReader();
        await Client.forget(folder);
    },
};

onmessage = async ({ data: { id, call, args } }) => {
    try {
        await loaded;
        postMessage({ id, value: await calls[call](...args) });
    } catch (error) {
        postMessage({ id, error: error.message ?? String(error) });
    }
};
