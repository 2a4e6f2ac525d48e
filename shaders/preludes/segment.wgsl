// The tensor that holds element i of a flat vector. Needs `p.tensors` and the binding
// `segments`: [tensors + 1], the first element of each tensor, then the vector's length.
fn tensor_of(i: u32) -> u32 {
    var low = 0u;
    var high = p.tensors;
    while high - low > 1u {
        let middle = (low + high) / 2u;
        if segments[middle] <= i {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}
