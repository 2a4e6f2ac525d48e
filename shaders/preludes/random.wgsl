// pcg4d (Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 2020).
fn pcg4d(key: vec4<u32>) -> vec4<u32> {
    var v = key * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v = v ^ (v >> vec4<u32>(16u));
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// [0, 1) from the upper 24 bits: exact in f32. Named uniform01, since naga takes the name of
// the address space in var<uniform> for a function of that name.
fn uniform01(bits: u32) -> f32 {
    return f32(bits >> 8u) * 5.9604644775390625e-8;
}
