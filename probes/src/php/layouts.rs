//! Where each version of PHP keeps what a reader needs, for processes that do not hand
//! over a table of their own. Our engines do: theirs is compiled with their headers.
//!
//! One column per minor version; patch releases of a minor do not move fields, because
//! extensions are compiled once for all of them (the API number is the same): 8.4.24
//! and 8.4.28 have been compared. One
//! column for x86_64 and aarch64: every field but one is at the same place in both. Only
//! builds that are not thread-safe and not for debugging.
//!
//! A blank (`__`) is "not there, or not determined", and turns off the feature that
//! needs it. A neighbour's value is never used instead.
//!
//! How each column was obtained:
//!
//! | PHP | from | read live |
//! |---|---|---|
//! | 7.4 | `offsetof` over Debian's php7.4-dev 7.4.33, amd64 and arm64 | cli |
//! | 8.0 | the same over a third party's copy of the headers (reli-prof `v80.h`); 31 fields agree with phpspy's dumps | never |
//! | 8.1 | the same (`v81.h`) | never |
//! | 8.2 | `offsetof` over Debian's php8.2-dev 8.2.36, amd64 and arm64 | cli, fpm, cgi, embed |
//! | 8.3 | the same as 8.0 (`v83.h`) | never |
//! | 8.4 | `offsetof` over Debian's php8.4-dev 8.4.24, amd64 and arm64 | cli, fpm |
//! | 8.5 | `offsetof` over Debian's php8.5-dev 8.5.7, amd64 and arm64 | cli, fpm |
//!
//! "Read live" is on x86_64; aarch64 was compiled only. The columns never read live are
//! refused unless asked for. 8.6 was seen as a release candidate only and has none: its
//! fields may move until the release, and its builtins describe their arguments in
//! another way.
//!
//! `tests/live_layouts.rs` compiles every value again where the headers are installed.

use glasspool_abi::zend::Layout;

/// The versions of the columns, and their `ZEND_MODULE_API_NO`.
const VERSIONS: [Version; COLUMNS] = [
    verified(7, 4, 20_190_902),
    unverified(8, 0, 20_200_930),
    unverified(8, 1, 20_210_902),
    verified(8, 2, 20_220_829),
    unverified(8, 3, 20_230_831),
    verified(8, 4, 20_240_924),
    verified(8, 5, 20_250_925),
];
const COLUMNS: usize = 7;

#[derive(Debug, Clone, Copy)]
struct Version {
    minor: (u32, u32),
    api: u32,
    verified: bool,
}

const fn verified(major: u32, minor: u32, api: u32) -> Version {
    Version {
        minor: (major, minor),
        api,
        verified: true,
    }
}

const fn unverified(major: u32, minor: u32, api: u32) -> Version {
    Version {
        verified: false,
        ..verified(major, minor, api)
    }
}

/// Why there is no layout for a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoLayout {
    /// No column.
    #[error("no offsets are known for it; {}", supported())]
    Unknown,
    /// A column that nobody has tried.
    #[error(
        "its offsets were never tried on a running process, so they are used only if that is asked for; {}",
        supported()
    )]
    Unverified,
    /// Neither x86_64 nor aarch64.
    #[error("the offsets are known for x86_64 and aarch64 only")]
    Machine,
}

/// The versions that can be read, in words, for messages.
#[must_use]
pub fn supported() -> String {
    let names: Vec<String> = VERSIONS
        .iter()
        .filter(|version| version.verified)
        .map(|version| format!("{}.{}", version.minor.0, version.minor.1))
        .collect();
    match names.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last} can be read", rest.join(", ")),
        names => format!("{} can be read", names.concat()),
    }
}

/// The API number of a version (major, minor) that has a column.
#[must_use]
pub fn api_of(minor: (u32, u32)) -> Option<u32> {
    let version = VERSIONS.iter().find(|version| version.minor == minor)?;
    Some(version.api)
}

/// The layout of a version (major, minor), NTS, without debugging; one that was never
/// tried only if `unverified`.
pub fn layout(minor: (u32, u32), unverified: bool) -> Result<Layout, NoLayout> {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Err(NoLayout::Machine);
    }
    let column = VERSIONS
        .iter()
        .position(|version| version.minor == minor)
        .ok_or(NoLayout::Unknown)?;
    if !VERSIONS[column].verified && !unverified {
        return Err(NoLayout::Unverified);
    }
    let known = ROWS.iter().map(|(name, values)| (*name, values[column]));
    Layout::from_entries(known.filter(|(_, value)| *value != __)).map_err(|_| NoLayout::Unknown)
}

/// The names of all rows and their values for a version, for comparison with headers.
pub fn rows(minor: (u32, u32)) -> impl Iterator<Item = (&'static str, Option<u32>)> {
    let column = VERSIONS.iter().position(|version| version.minor == minor);
    ROWS.iter().filter_map(move |(name, values)| {
        let value = values[column?];
        Some((*name, (value != __).then_some(value)))
    })
}

/// Not there, or not determined.
const __: u32 = u32::MAX;
/// It is behind a `struct stat`, whose size differs.
const TIME: u32 = if cfg!(target_arch = "x86_64") { 440 } else { __ };

#[rustfmt::skip]
const ROWS: &[(&str, [u32; COLUMNS])] = &[
    //                                                       7.4   8.0   8.1   8.2   8.3   8.4   8.5
    ("zend_executor_globals.current_execute_data",        [ 488,  488,  488,  488,  488,  488,  512]),
    ("zend_executor_globals.vm_stack",                    [ 472,  472,  472,  472,  472,  472,  496]),
    ("zend_executor_globals.vm_stack_top",                [ 456,  456,  456,  456,  456,  456,  480]),
    ("zend_executor_globals.vm_stack_end",                [ 464,  464,  464,  464,  464,  464,  488]),
    ("zend_execute_data.opline",                          [   0,    0,    0,    0,    0,    0,    0]),
    ("zend_execute_data.func",                            [  24,   24,   24,   24,   24,   24,   24]),
    ("zend_execute_data.This",                            [  32,   32,   32,   32,   32,   32,   32]),
    ("zend_execute_data.This.u1.type_info",               [  40,   40,   40,   40,   40,   40,   40]),
    ("zend_execute_data.prev_execute_data",               [  48,   48,   48,   48,   48,   48,   48]),
    ("sizeof zend_execute_data",                          [  72,   80,   80,   80,   80,   80,   80]),
    ("zend_function.type",                                [   0,    0,    0,    0,    0,    0,    0]),
    ("zend_function.common.fn_flags",                     [   4,    4,    4,    4,    4,    4,    4]),
    ("zend_function.common.function_name",                [   8,    8,    8,    8,    8,    8,    8]),
    ("zend_function.common.scope",                        [  16,   16,   16,   16,   16,   16,   16]),
    ("zend_op_array.opcodes",                             [  64,   72,   72,   88,   80,  104,  104]),
    ("zend_op_array.last",                                [  60,   68,   68,   80,   76,   96,   96]),
    ("zend_op_array.filename",                            [ 136,  144,  144,  152,  144,  168,  168]),
    ("zend_op_array.line_start",                          [ 144,  152,  152,  160,  152,  176,  176]),
    ("sizeof zend_op_array",                              [ 224,  232,  240,  248,  240,  256,  256]),
    ("sizeof zend_internal_function",                     [ 112,  120,  120,  136,  136,  160,  160]),
    ("zend_op.lineno",                                    [  24,   24,   24,   24,   24,   24,   24]),
    ("sizeof zend_op",                                    [  32,   32,   32,   32,   32,   32,   32]),
    ("zend_class_entry.name",                             [   8,    8,    8,    8,    8,    8,    8]),
    ("zend_string.len",                                   [  16,   16,   16,   16,   16,   16,   16]),
    ("zend_string.val",                                   [  24,   24,   24,   24,   24,   24,   24]),
    ("zend_executor_globals.function_table",              [ 432,  432,  432,  432,  432,  432,  456]),
    ("zend_executor_globals.objects_store",               [ 840,  840,  840,  840,  840,  856,  880]),
    ("zend_executor_globals.exception_ignore_args",       [1608, 1608, 1616, 1624,  684,  700,  724]),
    ("zend_objects_store.top",                            [   8,    8,    8,    8,    8,    8,    8]),
    ("zend_execute_data.This.u2.num_args",                [  44,   44,   44,   44,   44,   44,   44]),
    ("zend_execute_data.extra_named_params",              [  __,   72,   72,   72,   72,   72,   72]),
    ("zend_function.common.num_args",                     [  32,   32,   32,   32,   32,   32,   32]),
    ("zend_function.common.arg_info",                     [  40,   40,   40,   40,   40,   40,   40]),
    ("zend_function.common.attributes",                   [  __,   48,   48,   48,   48,   48,   48]),
    ("zend_op_array.last_var",                            [  52,   60,   60,   76,   72,   92,   92]),
    ("zend_op_array.T",                                   [  56,   64,   64,   56,   64,   72,   72]),
    ("zend_internal_function.handler",                    [  48,   56,   56,   72,   72,   88,   88]),
    ("zend_arg_info.name",                                [   0,    0,    0,    0,    0,    0,    0]),
    ("sizeof zend_arg_info",                              [  24,   32,   32,   32,   32,   32,   32]),
    ("zend_internal_arg_info.name",                       [   0,    0,    0,    0,    0,    0,    0]),
    ("sizeof zend_internal_arg_info",                     [  24,   32,   32,   32,   32,   32,   32]),
    ("zend_attribute.lcname",                             [  __,   __,   __,    8,   __,    8,    8]),
    ("zend_attribute.offset",                             [  __,   __,   __,   24,   __,   24,   32]),
    ("zend_array.arData",                                 [  16,   16,   16,   16,   16,   16,   16]),
    ("zend_array.u.flags",                                [   8,    8,    8,    8,    8,    8,    8]),
    ("zend_array.nNumUsed",                               [  24,   24,   24,   24,   24,   24,   24]),
    ("zend_array.nNumOfElements",                         [  28,   28,   28,   28,   28,   28,   28]),
    ("Bucket.key",                                        [  24,   24,   24,   24,   24,   24,   24]),
    ("sizeof Bucket",                                     [  32,   32,   32,   32,   32,   32,   32]),
    ("zval.u1.type_info",                                 [   8,    8,    8,    8,    8,    8,    8]),
    ("sizeof zval",                                       [  16,   16,   16,   16,   16,   16,   16]),
    ("zend_reference.val",                                [   8,    8,    8,    8,    8,    8,    8]),
    ("zend_object.ce",                                    [  16,   16,   16,   16,   16,   16,   16]),
    ("zend_generator.execute_data",                       [  64,   __,   __,   56,   56,   56,   56]),
    ("zend_generator.node",                               [ 160,   __,   __,  152,  152,  152,  152]),
    ("zend_generator.execute_fake",                       [ 200,   __,   __,  184,  184,  184,  184]),
    ("zend_fiber_context.status",                         [  __,   __,   32,   40,   40,   40,   40]),
    ("zend_fiber.context",                                [  __,   __,   64,   64,   64,   64,   64]),
    ("zend_fiber.caller",                               [  __,   __,  152,  168,  168,  168,  168]),
    ("zend_fiber.execute_data",                           [  __,   __,  264,  280,  288,  288,  288]),
    ("sapi_globals_struct.request_info.request_method",   [   8,    8,    8,    8,    8,    8,    8]),
    ("sapi_globals_struct.request_info.query_string",     [  16,   16,   16,   16,   16,   16,   16]),
    ("sapi_globals_struct.request_info.path_translated",  [  40,   40,   40,   40,   40,   40,   40]),
    ("sapi_globals_struct.request_info.request_uri",      [  48,   48,   48,   48,   48,   48,   48]),
    ("sapi_globals_struct.global_request_time",           [TIME,   __,   __, TIME,   __, TIME, TIME]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_a_whole_layout_and_every_row_is_asked_for() {
        for version in VERSIONS {
            layout(version.minor, true).unwrap();
            assert_eq!(
                layout(version.minor, false).is_ok(),
                version.verified,
                "{version:?}"
            );
        }
        let asked: Vec<&str> = Layout::NAMES
            .iter()
            .chain(Layout::OPTIONAL_NAMES)
            .copied()
            .collect();
        let rows: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
        assert_eq!(rows, asked);
    }

    #[test]
    fn versions_without_a_column_are_refused() {
        assert_eq!(layout((8, 6), true), Err(NoLayout::Unknown));
        assert_eq!(layout((5, 6), true), Err(NoLayout::Unknown));
        assert_eq!(api_of((8, 6)), None);
        assert_eq!(layout((8, 1), false), Err(NoLayout::Unverified));
    }

    #[test]
    fn what_a_version_does_not_have_is_blank() {
        let layout = |minor| layout(minor, true).unwrap();
        assert_eq!(layout((7, 4)).fiber_frame, None);
        assert_eq!(layout((7, 4)).func_attributes, None);
        assert_eq!(layout((8, 3)).attribute_offset, None, "not determined");
        assert_eq!(layout((8, 4)).attribute_offset, Some(24));
        assert_eq!(layout((8, 5)).attribute_offset, Some(32));
        assert_eq!(layout((8, 5)).eg_current_execute_data, 512);
    }
}
