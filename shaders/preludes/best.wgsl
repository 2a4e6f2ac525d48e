// An element of a row and its place, ordered: larger values first, ties by the lower place.
const NOWHERE: u32 = 0xffffffffu;

struct Best {
    value: f32,
    place: u32,
}

// Whether a comes before b; anything comes before the place NOWHERE.
fn before(a: Best, b: Best) -> bool {
    if a.place == NOWHERE || b.place == NOWHERE {
        return a.place < b.place;
    }
    return a.value > b.value || (a.value == b.value && a.place < b.place);
}
