// The package's module: what the bindings export, and the one of the two builds that this browser
// can compile.

import load from "./bindings.js";

export * from "./bindings.js";

// A module whose one function is `f32x4.relaxed_madd`.
const FUSED = Uint8Array.of(
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // its version
    0x01, 0x08, 0x01, 0x60, 0x03, 0x7b, 0x7b, 0x7b, 0x01, 0x7b, // three vectors to one
    0x03, 0x02, 0x01, 0x00,
    0x0a, 0x0d, 0x01, 0x0b, 0x00, 0x20, 0x00, 0x20, 0x01, 0x20, 0x02, 0xfd, 0x85, 0x02, 0x0b,
);

function fitting() {
    return WebAssembly.validate(FUSED)
        ? new URL("tern_relaxed.wasm", import.meta.url)
        : new URL("tern.wasm", import.meta.url);
}

export default async function init(options) {
    return load(options ?? { module_or_path: fitting() });
}
