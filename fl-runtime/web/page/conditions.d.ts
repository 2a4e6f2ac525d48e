/** What must hold for a device to take part; what is left out need not. */
export interface Conditions {
    /** It is connected to power. */
    charging?: boolean;
    /** Its network doesn't count bytes: no mobile one, and none on which data is to be saved. */
    unmetered?: boolean;
    /** Its page is seen. */
    visible?: boolean;
}
/** Whether this browser tells of it; what it doesn't tell is taken to hold. */
export function known(condition: keyof Conditions): boolean;
/** Calls `told` with the conditions that don't hold, soon and whenever that changes, until what it
 *  returns is called. On a page: workers are told nothing of these. */
export function watch(
    conditions: Conditions,
    told: (lacking: (keyof Conditions)[]) => void,
): () => void;
