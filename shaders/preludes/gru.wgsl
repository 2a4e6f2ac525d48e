// One GRU cell for a scalar or vector `Units` that the kernel defines; needs squash.wgsl. Gates r, z
// and n in this order.
const GATES: u32 = 3u;

struct Cell {
    r: Units,
    z: Units,
    n: Units,
    h: Units,
}

struct CellGradient {
    r: Units,
    z: Units,
    n: Units,
    // Of the new gate's recurrent part.
    q: Units,
    // Of the hidden state before the step, but for what comes through the gates.
    h: Units,
}

// From the gates before activation, n without its recurrent part q, and the hidden state before the
// step.
fn cell_forward(r: Units, z: Units, n: Units, q: Units, before: Units) -> Cell {
    var cell: Cell;
    cell.r = cell_sigmoid(r);
    cell.z = cell_sigmoid(z);
    cell.n = cell_tanh(n + cell.r * q);
    cell.h = cell.n + cell.z * (before - cell.n);
    return cell;
}

// From activated gates, the new gate's recurrent part, the hidden state before the step, and the
// gradient of the one after it.
fn cell_backward(r: Units, z: Units, n: Units, q: Units, before: Units, dh: Units) -> CellGradient {
    let one = Units(1.0);
    var d: CellGradient;
    d.n = dh * (one - z) * (one - n * n);
    d.z = dh * (before - n) * z * (one - z);
    d.r = d.n * q * r * (one - r);
    d.q = d.n * r;
    d.h = dh * z;
    return d;
}
