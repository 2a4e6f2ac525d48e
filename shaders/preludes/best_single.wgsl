// row_best with one lane; goes with rows_single.
fn row_best(local: u32, candidate: Best) -> Best {
    return candidate;
}
