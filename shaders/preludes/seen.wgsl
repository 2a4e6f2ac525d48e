// Output rows or columns that saw an input row or column through a tap that lies so far from the first.
struct Seen {
    at: vec4<u32>,
    valid: vec4<bool>,
}

fn seen_by(at: vec4<u32>, tap: u32, padding: u32, stride: u32, size: u32) -> Seen {
    // Places before the first wrap around and are past the last, too.
    let distance = at + padding - tap;
    if stride == 1u {
        return Seen(distance, distance < vec4<u32>(size));
    }
    let q = distance / stride;
    return Seen(q, (q < vec4<u32>(size)) & (q * stride == distance)
        & (at + padding >= vec4<u32>(tap)));
}
