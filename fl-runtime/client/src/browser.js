// The origin's storage, its locks, and timers, for a client of federated runs.

const STORE = "files";

/** A request to the database, or a transaction, as a promise. */
function settled(request) {
    return new Promise((resolve, reject) => {
        request.onsuccess = request.oncomplete = () => resolve(request.result);
        request.onerror = request.onabort = () => reject(request.error);
    });
}

async function database() {
    const request = indexedDB.open("tern", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    return settled(request);
}

/** Takes a folder for as long as this tab lives; what gives it back, or null if another has it. */
export function lock(folder) {
    return new Promise((resolve, reject) => {
        navigator.locks
            .request(`tern ${folder}`, { ifAvailable: true }, (held) => {
                if (held === null) return resolve(null);
                return new Promise((release) => resolve(release));
            })
            .catch(reject);
    });
}

/** Names and bytes of a folder's files, not those of folders in it. */
export async function load(folder) {
    const opened = await database();
    try {
        const files = opened.transaction(STORE).objectStore(STORE);
        const range = IDBKeyRange.bound([folder], [folder, []]);
        const [keys, values] = await Promise.all([
            settled(files.getAllKeys(range)),
            settled(files.getAll(range)),
        ]);
        return keys.map(([, name], at) => [name, values[at]]);
    } finally {
        opened.close();
    }
}

/** Writes and removes files, all at once or none, and flushed to the disk. */
export async function store(folder, written, removed) {
    const opened = await database();
    try {
        const transaction = opened.transaction(STORE, "readwrite", { durability: "strict" });
        const files = transaction.objectStore(STORE);
        for (const [name, bytes] of written) files.put(bytes, [folder, name]);
        for (const name of removed) files.delete([folder, name]);
        await settled(transaction);
    } finally {
        opened.close();
    }
}

/** Removes a folder's files, and those of folders in it. */
export async function forget(folder) {
    const opened = await database();
    try {
        const transaction = opened.transaction(STORE, "readwrite", { durability: "strict" });
        const files = transaction.objectStore(STORE);
        files.delete(IDBKeyRange.bound([folder], [folder, []]));
        // The digit follows the slash.
        files.delete(IDBKeyRange.bound([`${folder}/`], [`${folder}0`], false, true));
        await settled(transaction);
    } finally {
        opened.close();
    }
}

export function sleep(milliseconds) {
    return new Promise((done) => setTimeout(done, milliseconds));
}
