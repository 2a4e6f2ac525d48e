// What a program in TypeScript writes; it is compiled, not run.
import init, { Client, Device, Model, Samples, bench, encode } from "tern-web";
import { known, watch } from "tern-web/conditions.js";
import type { BenchPart, Epoch, ModelSpec, Outcome, Report, Scores, Task } from "tern-web";

await init();
await init({ module_or_path: new URL("https://files.example/tern.wasm") });
const device: Device = await Device.open("best");
const spec: ModelSpec = {
    input: { features: { width: 2 } },
    layers: [
        ["hidden", { linear: { outputs: 8, activation: "relu" } }],
        ["drop", { dropout: { p: 0.1 } }],
        ["output", { linear: { outputs: 3 } }],
    ],
};
const model = new Model(device, spec, 7);
const samples = await Samples.rows(device, new Float32Array(4), 2, new Uint32Array([0, 2]), 3);
const options = { epochs: 2, batch: 2, learningRate: 0.01 };
const epochs: Epoch[] = await model.fit(samples, options, epoch => epoch.loss > 0.1);
const scores: Scores = await model.evaluate(samples);
const outputs: Float32Array = await model.predict(new Float32Array(2));
const file: Uint8Array = await model.save();
await model.load(file);
const parts: BenchPart[] = ["roofline", "checks"];
const report: Report = await bench(device, { parts, filter: "pointwise" }, event => {
    if ("check" in event) console.log(event.check.faults);
});
console.log(epochs.length, scores.accuracy, outputs, report.devices[0]?.checks.length);

const decoder: ModelSpec = {
    input: { tokens: { vocabulary: 64 } },
    layers: [
        ["embedding", { embedding: { dimension: 16 } }],
        ["decoder", { decoder: { layers: 1, heads: 2, key_value_heads: 1, head: 8, hidden: 32 } }],
        ["head", { language_model_head: { tied: true } }],
    ],
};
console.log(known("charging"), decoder);
const taking = { server: "https://federation.example", folder: "demo", token: "secret" };
const client = await Client.open(taking, event => {
    if (event.event === "uploaded") console.log(event.round, event.bytes);
});
const task: Task = await client.task();
const tokens: Uint32Array = encode(task, "a text");
client.allowed = false;
const end: () => void = watch({ charging: true, unmetered: true }, lacking => {
    client.allowed = lacking.length === 0;
});
end();
const outcome: Outcome = await client.run(device, samples);
const best: Uint8Array | null = outcome.finished ? outcome.model : null;
const own: Uint8Array | undefined = await Client.stored("demo", "personal");
console.log(tokens, best, own);

// @ts-expect-error a layer that there isn't
const wrong: ModelSpec = { input: { features: { width: 2 } }, layers: [["x", { dense: 3 }]] };
// @ts-expect-error options are said by name
await model.fit(samples, 3);
console.log(wrong);
