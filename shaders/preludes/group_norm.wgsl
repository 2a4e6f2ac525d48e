// Parameters of the group normalizations, and which group and channel an element belongs to. A group
// has `runs` runs of `run` elements, `gap` apart.
struct Params {
    groups: u32,
    runs: u32,
    run: u32,
    gap: u32,
    channels: u32,
    pixels: u32,
    epsilon: f32,
    gamma_offset: u32,
    beta_offset: u32,
    stride: u32,
    fixed: u32,
    gamma_mode: u32,
    beta_mode: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

// Elements of a replica.
fn elements() -> u32 {
    return p.groups * p.runs * p.run;
}

// The place of element i of a group.
fn place(index: u32, i: u32) -> u32 {
    return (i / p.run) * p.gap + index * p.run + i % p.run;
}

fn group_of(at: u32) -> u32 {
    return (at / p.run) % p.groups;
}

fn channel_of(at: u32) -> u32 {
    return (at / p.pixels) % p.channels;
}

// Where the mean of a group is in the moments; the variance lies `groups` further on.
fn mean_at(replica: u32, index: u32) -> u32 {
    return replica * 2u * p.groups + index;
}

fn gamma_at(replica: u32, channel: u32) -> u32 {
    return replica * p.stride + p.gamma_offset + channel;
}

fn beta_at(replica: u32, channel: u32) -> u32 {
    return replica * p.stride + p.beta_offset + channel;
}
