// row_best over the lanes of a workgroup; goes with rows_group.
var<workgroup> best_values: array<f32, GROUP>;
var<workgroup> best_places: array<u32, GROUP>;

// The first of the lanes' candidates, the same on all of them.
fn row_best(local: u32, candidate: Best) -> Best {
    // The scratch may still be read from the previous reduction.
    workgroupBarrier();
    best_values[local] = candidate.value;
    best_places[local] = candidate.place;
    workgroupBarrier();
    for (var s = GROUP / 2u; s > 0u; s = s / 2u) {
        if local < s {
            let other = Best(best_values[local + s], best_places[local + s]);
            if before(other, Best(best_values[local], best_places[local])) {
                best_values[local] = other.value;
                best_places[local] = other.place;
            }
        }
        workgroupBarrier();
    }
    return Best(best_values[0], best_places[0]);
}
