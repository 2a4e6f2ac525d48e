// The page of the bench suite: runs it in a worker, shows each kernel when it is done, and then
// what was timed.

const at = (id) => document.getElementById(id);

function add(body, texts, wrong) {
    const line = document.createElement("tr");
    for (const text of texts) line.appendChild(document.createElement("td")).textContent = text;
    if (wrong) line.className = "bad";
    at(body).append(line);
}

function addCheck(check) {
    const wrong = check.faults.length > 0;
    const result = wrong ? check.faults.join("; ") : "right";
    at("table").hidden = false;
    add("rows", [check.kernel, check.cases, check.error.toExponential(1), result], wrong);
    return wrong;
}

/** A time with a unit in which it reads well. */
function duration(seconds) {
    const [unit, scale] = seconds < 1e-3 ? ["µs", 1e6] : seconds < 1 ? ["ms", 1e3] : ["s", 1];
    return `${(seconds * scale).toPrecision(3)} ${unit}`;
}

function showRoofline(roofline) {
    const giga = (rate) => (rate === null ? "not run" : (rate / 1e9).toPrecision(3));
    const lines = [
        ["copy", `${giga(roofline.bandwidth)} GB/s`],
        ["multiply-add, 32 bits", `${giga(roofline.single)} GFLOP/s`],
        ["multiply-add, 16 bits", roofline.half === null ? "not run" : `${giga(roofline.half)} GFLOP/s`],
        ["dispatch", duration(roofline.dispatch)],
        ["submit and wait", duration(roofline.submit)],
        ["read-back of 4 bytes", duration(roofline.read_back)],
    ];
    const list = at("roofline");
    for (const [name, value] of lines) {
        list.appendChild(document.createElement("dt")).textContent = name;
        list.appendChild(document.createElement("dd")).textContent = value;
    }
    list.hidden = false;
}

function showTimes({ kernels, training }) {
    for (const row of kernels) {
        const rest = row.outcome === "timed"
            ? [duration(row.times.median), `${row.rate.toPrecision(3)} ${row.unit}`]
            : [row.reason, ""];
        add("timed", [row.kernel, row.sizes, ...rest], row.outcome === "failed");
    }
    for (const { workload, sizes, step } of training) {
        add("timed", [workload, sizes, duration(step.median), "a step"], false);
    }
    at("times").hidden = kernels.length + training.length === 0;
}

at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    at("run").disabled = true;
    for (const id of ["rows", "timed", "roofline"]) at(id).replaceChildren();
    for (const id of ["table", "times", "roofline", "report"]) at(id).hidden = true;
    at("state").textContent = "loading …";
    const parts = [...document.querySelectorAll("[name=part]:checked")].map((box) => box.value);
    const worker = new Worker("worker.js", { type: "module" });
    let kernels = 0;
    let wrong = 0;
    const ended = (text) => {
        at("state").textContent = text;
        at("progress").textContent = "";
        at("run").disabled = false;
        worker.terminate();
    };
    worker.onerror = (error) => ended(`failed: ${error.message}`);
    worker.onmessage = ({ data }) => {
        const { event, error, value: report } = data;
        if (event?.check !== undefined) {
            kernels += 1;
            wrong += addCheck(event.check);
        } else if (event?.part !== undefined) {
            at("state").textContent = event.part;
        } else if (event !== undefined) {
            at("progress").textContent = `${event.done} of ${event.all}: ${event.what}`;
        } else if (error !== undefined) {
            ended(`failed: ${error}`);
        } else {
            const text = new Blob([JSON.stringify(report, null, 2)], { type: "application/json" });
            at("report").href = URL.createObjectURL(text);
            at("report").hidden = false;
            const [device] = report.devices;
            if (device.roofline !== null) showRoofline(device.roofline);
            showTimes(device);
            const checked = parts.includes("checks") ? `${kernels} kernels, ${wrong} wrong, ` : "";
            ended(`${checked}on ${device.adapter.name || "GPU"}`);
        }
    };
    const options = { parts, quick: at("quick").checked };
    worker.postMessage({ id: 1, call: "bench", args: [at("device").value, options] });
});
