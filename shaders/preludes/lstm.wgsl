// One LSTM cell for a scalar or vector `Units` that the kernel defines; needs squash.wgsl. CIFG
// couples f = 1 - i.
const GATES: u32 = 4u - CIFG;
// Positions among the gates: i f g o, coupled i g o.
const F: u32 = 1u;
const G: u32 = 2u - CIFG;
const O: u32 = 3u - CIFG;

struct Cell {
    i: Units,
    f: Units,
    g: Units,
    o: Units,
    c: Units,
    h: Units,
}

struct CellGradient {
    i: Units,
    f: Units,
    g: Units,
    o: Units,
    c: Units,
}

// From the gates before activation and the cell state before the step.
fn cell_forward(i: Units, f: Units, g: Units, o: Units, before: Units) -> Cell {
    var cell: Cell;
    cell.i = cell_sigmoid(i);
    cell.g = cell_tanh(g);
    cell.o = cell_sigmoid(o);
    if CIFG == 1u {
        cell.f = Units(1.0) - cell.i;
    } else {
        cell.f = cell_sigmoid(f);
    }
    cell.c = cell.f * before + cell.i * cell.g;
    cell.h = cell.o * cell_tanh(cell.c);
    return cell;
}

// From activated gates (f is not read when coupled), the cell state before and after the step,
// and the gradients of the hidden and the cell state after it; c is the one before it.
fn cell_backward(
    i: Units, f: Units, g: Units, o: Units,
    before: Units, after: Units,
    dh: Units, dc: Units,
) -> CellGradient {
    let one = Units(1.0);
    let squashed = cell_tanh(after);
    let carried = dc + dh * o * (one - squashed * squashed);
    var d: CellGradient;
    if CIFG == 1u {
        d.i = carried * (g - before) * i * (one - i);
        d.c = carried * (one - i);
    } else {
        d.i = carried * g * i * (one - i);
        d.f = carried * before * f * (one - f);
        d.c = carried * f;
    }
    d.g = carried * i * (one - g * g);
    d.o = dh * squashed * o * (one - o);
    return d;
}
