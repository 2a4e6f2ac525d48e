import type { InitInput, InitOutput } from "./bindings.js";

export * from "./bindings.js";

/**
 * Loads what computes, once: everything else may be called when it is there.
 *
 * Of the package's two builds the one that the browser can compile, or the one that is given:
 * `tern.wasm` needs vectors of four lanes alone, `tern_relaxed.wasm` relaxed SIMD, too.
 */
export default function init(options?: {
    module_or_path: InitInput | Promise<InitInput>;
}): Promise<InitOutput>;
