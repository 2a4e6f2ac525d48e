// The page of checks: runs them in a worker and shows each kernel when it is done.

const at = (id) => document.getElementById(id);

function row(check) {
    const line = document.createElement("tr");
    const wrong = check.faults.length > 0;
    const texts = [
        check.kernel,
        check.cases,
        check.error.toExponential(1),
        wrong ? check.faults.join("; ") : "right",
    ];
    for (const text of texts) line.appendChild(document.createElement("td")).textContent = text;
    if (wrong) line.className = "bad";
    at("rows").append(line);
    return wrong;
}

at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    at("run").disabled = true;
    at("rows").replaceChildren();
    at("table").hidden = false;
    at("report").hidden = true;
    at("state").textContent = "loading …";
    const worker = new Worker("worker.js", { type: "module" });
    let kernels = 0;
    let wrong = 0;
    const ended = (text) => {
        at("state").textContent = text;
        at("run").disabled = false;
        worker.terminate();
    };
    worker.onerror = (error) => ended(`failed: ${error.message}`);
    worker.onmessage = ({ data }) => {
        if (data.check !== undefined) {
            kernels += 1;
            wrong += row(data.check);
            at("state").textContent = `${kernels} kernels, ${wrong} wrong`;
        } else if (data.error !== undefined) {
            ended(`failed: ${data.error}`);
        } else {
            const report = data.value;
            const text = new Blob([JSON.stringify(report, null, 2)], { type: "application/json" });
            at("report").href = URL.createObjectURL(text);
            at("report").hidden = false;
            const name = report.devices[0].adapter.name || "GPU";
            ended(`${kernels} kernels on ${name}, ${wrong} wrong`);
        }
    };
    worker.postMessage({ id: 1, call: "checks", args: [at("device").value] });
});
