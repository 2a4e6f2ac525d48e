//! Loops that are written out before a driver reads them.
//!
//! A driver that neither unrolls a loop nor splits an array keeps the array in memory, where an
//! index that varies costs a load for each invocation: SwiftShader, on which browsers fall back,
//! computes products five times slower so. With the loop written out every index is a constant.

/// The end of a line that opens such a loop. Its counter starts at zero and its bound is a product
/// of literals and header constants; it is neither left nor continued from inside.
const MARK: &str = ") { // unrolled";

/// The text with every marked loop as one block a turn, in which the counter is a constant.
///
/// # Panics
/// If a marked loop is written otherwise, which is an error in the kernel's source.
pub(crate) fn unroll(text: &str, consts: &[(&str, u32)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(head) = line.strip_suffix(MARK) else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let (counter, bound) = loop_of(head.trim_start(), consts)
            .unwrap_or_else(|| panic!("not a loop that can be unrolled: {line}"));
        let mut depth = 1;
        let body: Vec<&str> = lines
            .by_ref()
            .take_while(|line| {
                depth += line.matches('{').count();
                depth -= line.matches('}').count();
                depth > 0
            })
            .collect();
        assert!(depth == 0, "no end of {line}");
        let body = unroll(&body.join("\n"), consts);
        for turn in 0..bound {
            out.push_str(&format!("{{ const {counter} = {turn}u;\n{body}}}\n"));
        }
    }
    out
}

/// Counter and bound of `for (var b = 0u; b < ROWS; b++`.
fn loop_of<'a>(head: &'a str, consts: &[(&str, u32)]) -> Option<(&'a str, u32)> {
    let (counter, rest) = head.strip_prefix("for (var ")?.split_once(" = 0u; ")?;
    let rest = rest.strip_prefix(counter)?.strip_prefix(" < ")?;
    let bound = rest.strip_suffix("++")?.strip_suffix(counter)?.strip_suffix("; ")?;
    let factor = |factor: &str| {
        let constant = consts.iter().find(|(name, _)| *name == factor).map(|(_, value)| *value);
        constant.or_else(|| factor.strip_suffix('u')?.parse().ok())
    };
    let bound = bound.split(" * ").map(factor).product::<Option<u32>>()?;
    Some((counter, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_loops_are_written_out() {
        let text =
            "a\n    for (var b = 0u; b < 2u; b++) { // unrolled\n        x[b] = 1u;\n    }\n";
        let expected = "a\n{ const b = 0u;\n        x[b] = 1u;\n}\n\
                        { const b = 1u;\n        x[b] = 1u;\n}\n";
        assert_eq!(unroll(text, &[]), expected);
    }

    #[test]
    fn loops_inside_are_written_out_by_the_header() {
        let text = "for (var i = 0u; i < 2u * ROWS; i++) { // unrolled\n\
                    for (var j = 0u; j < 2u; j++) { // unrolled\nif c { f(i, j); }\n}\n}";
        let out = unroll(text, &[("ROWS", 3)]);
        assert_eq!(out.matches("f(i, j)").count(), 12);
        assert_eq!(out.matches("const i = 5u").count(), 1);
        assert_eq!(out.matches('{').count(), out.matches('}').count());
    }

    #[test]
    fn other_loops_stay() {
        let text = "for (var k = 0u; k < p.k; k++) {\n}\n";
        assert_eq!(unroll(text, &[]), text);
    }

    #[test]
    #[should_panic(expected = "not a loop that can be unrolled")]
    fn a_bound_that_is_no_constant_is_named() {
        unroll("for (var k = 0u; k < p.k; k++) { // unrolled\n}\n", &[]);
    }
}
