//! Kernels that reduce over rows or columns: one WGSL text, in a form with workgroup memory
//! for hardware, one that reduces by subgroups first, and one without for software devices.

/// Rows that a kernel which sums over rows takes in one dispatch, so that no lane's loop is too
/// long for any device. More take a dispatch a part.
pub const MAX_SUMMED_ROWS: u32 = 400_000;

/// Iterations of a lane's loops over a row that `lanes` share.
pub(crate) fn over_row<P>(p: &P, lanes: u32, length: fn(&P) -> u32, passes: fn(&P) -> u32) -> u64 {
    u64::from(length(p).div_ceil(lanes)) * u64::from(passes(p))
}

/// Declares a [`crate::Kernel`] that reduces over rows with the `rows_*` preludes.
///
/// `rows` and `length` give the number of rows and the elements of one, `passes` how often
/// the text loops over a row. `group` and `single` name the preludes that only that form
/// takes.
macro_rules! row_kernel {
    (
        $(#[$meta:meta])*
        $id:ident = $name:literal, $params:ty;
        bindings: [$($bname:ident : $access:ident $element:ident),+ $(,)?];
        reference: $reference:path;
        source: $source:literal;
        $(group: [$($group:ident),*]; single: [$($single:ident),*];)?
        rows: $rows:expr;
        length: $length:expr;
        passes: $passes:expr;
    ) => {
        $crate::kernel! {
            $(#[$meta])*
            $id = $name, $params;
            bindings: [$($bname: $access $element),+];
            reference: $reference;
            variants: [{
                name: "wide_subgroup",
                source: $source,
                preludes: [ROWS_SUBGROUP $($(, $group)*)?],
                consts: [GROUP = 256],
                features: [Subgroup],
                workgroup_memory: true,
                fits: |p| {
                    let length: fn(&$params) -> u32 = $length;
                    length(p) >= 1024
                },
                iterations: |p, v| {
                    $crate::rows::over_row::<$params>(p, v.constant("GROUP"), $length, $passes)
                },
                grid: |p, _| {
                    let rows: fn(&$params) -> u32 = $rows;
                    $crate::linear_grid(rows(p) as usize, 1)
                },
            }, {
                name: "group_subgroup",
                source: $source,
                preludes: [ROWS_SUBGROUP $($(, $group)*)?],
                consts: [GROUP = 64],
                features: [Subgroup],
                workgroup_memory: true,
                iterations: |p, v| {
                    $crate::rows::over_row::<$params>(p, v.constant("GROUP"), $length, $passes)
                },
                grid: |p, _| {
                    let rows: fn(&$params) -> u32 = $rows;
                    $crate::linear_grid(rows(p) as usize, 1)
                },
            }, {
                name: "wide",
                source: $source,
                preludes: [ROWS_GROUP $($(, $group)*)?],
                consts: [GROUP = 256],
                workgroup_memory: true,
                fits: |p| {
                    let length: fn(&$params) -> u32 = $length;
                    length(p) >= 1024
                },
                iterations: |p, v| {
                    $crate::rows::over_row::<$params>(p, v.constant("GROUP"), $length, $passes)
                },
                grid: |p, _| {
                    let rows: fn(&$params) -> u32 = $rows;
                    $crate::linear_grid(rows(p) as usize, 1)
                },
            }, {
                name: "group",
                source: $source,
                preludes: [ROWS_GROUP $($(, $group)*)?],
                consts: [GROUP = 64],
                workgroup_memory: true,
                iterations: |p, v| {
                    $crate::rows::over_row::<$params>(p, v.constant("GROUP"), $length, $passes)
                },
                grid: |p, _| {
                    let rows: fn(&$params) -> u32 = $rows;
                    $crate::linear_grid(rows(p) as usize, 1)
                },
            }, {
                name: "single",
                source: $source,
                preludes: [ROWS_SINGLE $($(, $single)*)?],
                consts: [GROUP = 64],
                software: true,
                iterations: |p, _| $crate::rows::over_row::<$params>(p, 1, $length, $passes),
                grid: |p, v| {
                    let rows: fn(&$params) -> u32 = $rows;
                    $crate::linear_grid(rows(p) as usize, v.constant("GROUP"))
                },
            }];
        }
    };
}

/// Iterations of a loop over `rows` rows in blocks of 64.
pub(crate) fn in_blocks(rows: u32) -> u64 {
    u64::from(rows) + u64::from(rows.div_ceil(64))
}

/// Declares a [`crate::Kernel`] that sums over the rows of each column with the `columns_*`
/// preludes; `rows` and `columns` give the shape.
macro_rules! column_kernel {
    (
        $(#[$meta:meta])*
        $id:ident = $name:literal, $params:ty;
        bindings: [$($bname:ident : $access:ident $element:ident),+ $(,)?];
        reference: $reference:path;
        source: $source:literal;
        rows: $rows:expr;
        columns: $columns:expr;
    ) => {
        $crate::kernel! {
            $(#[$meta])*
            $id = $name, $params;
            bindings: [$($bname: $access $element),+];
            reference: $reference;
            variants: [{
                name: "group",
                source: $source,
                preludes: [COLUMNS_GROUP],
                consts: [GROUP = 256, COLUMNS = 32],
                workgroup_memory: true,
                iterations: |p, v| {
                    let rows: fn(&$params) -> u32 = $rows;
                    let lanes = v.constant("GROUP") / v.constant("COLUMNS");
                    $crate::rows::in_blocks(rows(p).div_ceil(lanes))
                },
                grid: |p, v| {
                    let columns: fn(&$params) -> u32 = $columns;
                    $crate::linear_grid(columns(p) as usize, v.constant("COLUMNS"))
                },
            }, {
                name: "single",
                source: $source,
                preludes: [COLUMNS_SINGLE],
                consts: [GROUP = 64],
                software: true,
                iterations: |p, _| {
                    let rows: fn(&$params) -> u32 = $rows;
                    $crate::rows::in_blocks(rows(p))
                },
                grid: |p, v| {
                    let columns: fn(&$params) -> u32 = $columns;
                    $crate::linear_grid(columns(p) as usize, v.constant("GROUP"))
                },
            }];
        }
    };
}

pub(crate) use {column_kernel, row_kernel};
