// When a device takes part: what browsers tell of power, network and sight.

/** Whether a browser tells this of its device. */
export function known(condition) {
    if (condition === "charging") return "getBattery" in navigator;
    if (condition === "unmetered") return navigator.connection !== undefined;
    return condition === "visible";
}

/** Calls `told` with those of the conditions that don't hold, soon and whenever that changes; what a
 *  browser doesn't tell holds. Returns a function that ends it. */
export function watch(conditions, told) {
    const ended = new AbortController();
    const { signal } = ended;
    const connection = conditions.unmetered ? navigator.connection : undefined;
    const asked = conditions.charging && known("charging") ? navigator.getBattery() : null;
    Promise.resolve(asked).catch(() => null).then((battery) => {
        let before = null;
        const look = () => {
            const lacking = [];
            if (battery !== null && !battery.charging) lacking.push("charging");
            const metered = connection?.saveData || connection?.type === "cellular";
            if (metered) lacking.push("unmetered");
            if (conditions.visible && document.visibilityState !== "visible") lacking.push("visible");
            const now = lacking.join();
            if (now !== before && !signal.aborted) told(lacking);
            before = now;
        };
        battery?.addEventListener("chargingchange", look, { signal });
        connection?.addEventListener("change", look, { signal });
        if (conditions.visible) document.addEventListener("visibilitychange", look, { signal });
        look();
    });
    return () => ended.abort();
}
