// An element of a row and its place, ordered: larger values first, NaN before
// all numbers, ties by the lower place.
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
    let nans = vec2<bool>(a.value != a.value, b.value != b.value);
    if any(nans) {
        return nans.x && (!nans.y || a.place < b.place);
    }
    return a.value > b.value || (a.value == b.value && a.place < b.place);
}
