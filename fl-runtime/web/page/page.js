// The page: what is written, what the worker does, and what people see of both. The token is in the
// link behind `#`, which browsers send nowhere: /page/#token=…

import { known, watch } from "./conditions.js";

const at = (id) => document.getElementById(id);
const put = (id, text) => { at(id).textContent = text; };
const asked = new URLSearchParams(location.hash.slice(1));
const FOLDER = asked.get("folder") ?? "keyboard";
const DEVICE = asked.get("device") ?? "best";
/** Characters of a window, and of a text that can be learned from. */
const STEPS = 20;
const LEAST = 200;
const SUGGESTIONS = 3;

let worker = null;
let waiting = new Map();
let numbers = 0;
let met = null;
let joined = false;
let over = false;
let updates = 0;
let bytes = 0;
let began = 0;
let losses = [];
/** Ends the look at conditions. */
let unwatch = () => {};
const CONDITIONS = {
    charging: "this device charges",
    unmetered: "its network is no mobile one",
    visible: "this page is seen",
};

/** A thread that computes; `ask` is a call of it. */
function start() {
    worker = new Worker("worker.js", { type: "module" });
    worker.onmessage = ({ data }) => {
        if (data.event !== undefined) return show(data.event);
        const { resolve, reject } = waiting.get(data.id);
        waiting.delete(data.id);
        if (data.error === undefined) resolve(data.value);
        else reject(new Error(data.error));
    };
    worker.onerror = (error) => put("state", `failed: ${error.message}`);
}

function ask(call, ...args) {
    numbers += 1;
    const id = numbers;
    return new Promise((resolve, reject) => {
        waiting.set(id, { resolve, reject });
        worker.postMessage({ id, call, args });
    });
}

function size(count) {
    return count < 1000 ? `${count} bytes` : `${(count / 1000).toFixed(1)} kB`;
}

/** A line through the losses. */
function chart() {
    const svg = at("chart");
    svg.replaceChildren();
    if (losses.length === 0) return;
    const [width, height, edge] = [600, 160, 34];
    const most = Math.max(...losses.map(([, loss]) => loss));
    const first = losses[0][0];
    const last = Math.max(losses[losses.length - 1][0], first + 1);
    const x = (round) => edge + ((round - first) / (last - first)) * (width - edge - 8);
    const y = (loss) => height - 20 - (loss / most) * (height - 36);
    const add = (name, attributes, text) => {
        const made = document.createElementNS("http://www.w3.org/2000/svg", name);
        for (const key in attributes) made.setAttribute(key, attributes[key]);
        if (text !== undefined) made.textContent = text;
        svg.append(made);
    };
    for (const part of [0, 0.5, 1]) {
        const loss = part * most;
        add("line", { class: "axis", x1: edge, x2: width - 8, y1: y(loss), y2: y(loss) });
        add("text", { x: edge - 4, y: y(loss) + 4, "text-anchor": "end" }, loss.toFixed(1));
    }
    add("text", { x: x(first), y: height - 4 }, first);
    add("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, last);
    const points = losses.map(([round, loss]) => `${x(round)},${y(loss)}`).join(" ");
    add("polyline", { class: "line", points });
    const [round, loss] = losses[losses.length - 1];
    svg.setAttribute("aria-label", `loss ${loss.toFixed(3)} after round ${round}`);
}

/** What the client does. */
function show(event) {
    if (event.event === "training") {
        began = performance.now();
        put("round", event.round);
        put("state", `training for round ${event.round}`);
    } else if (event.event === "trained") {
        const seconds = (performance.now() - began) / 1000;
        const loss = event.metrics.loss;
        put("speed", `${Math.round(event.samples / seconds)} samples a second`);
        put("state", `trained for round ${event.round}, waiting for the others`);
        if (loss !== undefined) {
            put("loss", loss.toFixed(3));
            losses.push([event.round, loss]);
            chart();
        }
        suggest();
    } else if (event.event === "uploaded") {
        updates += 1;
        bytes += event.bytes;
        put("updates", updates);
        put("bytes", size(bytes));
    } else if (event.event === "waiting") {
        put("state", `${event.reason}; again in ${event.seconds.toFixed(0)} s`);
    }
}

function buttons() {
    const long = at("text").value.length >= LEAST;
    at("join").disabled = met === null || joined || over || !long;
    at("pause").disabled = !joined;
    at("text").readOnly = joined;
    if (met === null || joined || over) return;
    if (!long) {
        put("state", `${LEAST - at("text").value.length} more characters, then you can take part`);
    } else {
        put("state", "ready");
    }
}

/** Puts a suggestion behind what is written. */
function take(text) {
    at("text").value += text;
    at("text").focus();
    buttons();
    suggest();
}

let suggesting = false;
let again = false;
/** Asks for suggestions, once at a time. */
async function suggest() {
    if (met === null || suggesting) {
        again = suggesting;
        return;
    }
    suggesting = true;
    const text = at("text").value.slice(-80) || "\n";
    try {
        const found = await ask("suggest", FOLDER, "personal", text, SUGGESTIONS, " .,;:!?\n", 12);
        at("suggestions").replaceChildren(
            ...found.map((way, number) => {
                const button = document.createElement("button");
                button.textContent = way.trim() === "" ? "␣" : way;
                button.title = `Alt+${number + 1}`;
                button.onclick = () => take(way);
                return button;
            }),
        );
    } catch (error) {
        put("state", `no suggestions: ${error.message}`);
    }
    suggesting = false;
    if (again) {
        again = false;
        suggest();
    }
}

async function meet() {
    start();
    const options = { server: location.origin, folder: FOLDER };
    const token = asked.get("token");
    if (token !== null) options.token = token;
    met = await ask("meet", options, DEVICE);
    put("name", met.task.name);
    put("device", met.device);
    put("id", met.id.slice(0, 16));
    const secure = met.task.secure !== null;
    put("terms", secure
        ? "The server learns the sum of all updates, and no single one."
        : "The server sees each update, not the text behind it.");
    put("masked", secure
        ? "Updates, masked: alone they are noise."
        : "Updates of the model, in the clear.");
    put("metrics", secure
        ? "the loss of your training, within a sum"
        : "the loss of your training");
    buttons();
    await suggest();
}

/** Lets the client take part while what was ticked holds. */
function consider() {
    unwatch();
    if (!joined) return;
    const asked = {};
    for (const name in CONDITIONS) asked[name] = at(name).checked;
    unwatch = watch(asked, (lacking) => {
        ask("allow", lacking.length === 0).catch(failed);
        const reasons = lacking.map((name) => CONDITIONS[name]).join(" and ");
        put("conditions", lacking.length === 0 ? "" : `The next round waits until ${reasons}.`);
    });
}

async function join() {
    joined = true;
    buttons();
    put("state", "waiting for the others");
    let end = null;
    try {
        consider();
        over = await ask("join", at("text").value, STEPS);
        end = over ? "the run is over: the model is yours" : "paused";
    } catch (error) {
        end = `ended: ${error.message}`;
    }
    joined = false;
    unwatch();
    buttons();
    put("state", end);
}

/** Ends what the worker does at once: what must survive is stored. */
function end() {
    unwatch();
    worker.terminate();
    waiting = new Map();
    met = null;
    joined = over = suggesting = false;
}

async function pause() {
    end();
    await meet();
    put("state", "paused");
}

async function forget() {
    end();
    start();
    await ask("forget", FOLDER);
    worker.terminate();
    at("text").value = "";
    losses = [];
    updates = bytes = 0;
    chart();
    for (const id of ["round", "loss", "speed"]) put(id, "–");
    put("updates", 0);
    put("bytes", 0);
    await meet();
    put("state", "forgotten: you are somebody new");
}

const failed = (error) => put("state", `failed: ${error.message}`);
at("text").addEventListener("input", () => { buttons(); suggest(); });
at("join").addEventListener("click", join);
at("pause").addEventListener("click", () => pause().catch(failed));
at("forget").addEventListener("click", () => forget().catch(failed));
for (const name in CONDITIONS) {
    at(name).disabled = !known(name);
    at(name).addEventListener("change", consider);
}
document.addEventListener("keydown", (event) => {
    const button = at("suggestions").children[Number(event.key) - 1];
    if (event.altKey && button !== undefined) {
        event.preventDefault();
        button.click();
    }
});
meet().catch(failed);
