// Words of a replica's state record; the same numbers as shaders/src/state.rs.
const STATE_WORDS: u32 = 64u;
const STATE_STEP: u32 = 0u;
const STATE_ACTIVE: u32 = 1u;
const STATE_SEED: u32 = 2u;
const STATE_BASE: u32 = 3u;
const STATE_COUNT: u32 = 4u;
const STATE_CURSOR: u32 = 5u;
const STATE_EPOCH: u32 = 6u;
const STATE_ROWS: u32 = 7u;
const STATE_RATE: u32 = 8u;
const STATE_LIMIT: u32 = 9u;
const STATE_SCALE: u32 = 10u;
const STATE_FAILED: u32 = 11u;
const STATE_SKIPPED: u32 = 12u;
const STATE_LOSS_SCALE: u32 = 13u;
const STATE_STEADY: u32 = 14u;
const STATE_SKIPS: u32 = 15u;
