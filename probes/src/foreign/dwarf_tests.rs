use std::fs::File;
use std::process::Command;

use gimli::{EndianSlice, LittleEndian, Section, SectionId};

use super::*;
use crate::native::debug_file;
use crate::php::layouts;

const HEADERS: &str = "#include <php.h>
#include <SAPI.h>
#include <zend_attributes.h>
#include <zend_fibers.h>
#include <zend_generators.h>
";

/// Debug information of C code.
fn compiled(code: &str) -> Dwarf<debug_file::Bytes> {
    let directory = tempfile::tempdir().unwrap();
    let (source, object) = (directory.path().join("x.c"), directory.path().join("x.so"));
    std::fs::write(&source, code).unwrap();
    let include = "/usr/include/php/20220829";
    let status = Command::new("cc")
        .args([
            "-g",
            "-fno-eliminate-unused-debug-types",
            "-shared",
            "-nostdlib",
            "-o",
        ])
        .args([&object, &source])
        .args(["", "/main", "/Zend", "/TSRM"].map(|part| format!("-I{include}{part}")))
        .status()
        .expect("needs a C compiler: run `make deps`");
    assert!(status.success(), "needs the headers of PHP 8.2: run `make deps`");
    debug_file::load(&File::open(object).unwrap(), debug_file::MAX_FILE).unwrap()
}

#[test]
fn every_name_of_a_layout_has_the_value_of_the_table() {
    let mut found = entries(&compiled(HEADERS));
    let mut expected: Vec<(&str, u32)> = layouts::rows((8, 2))
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(
        layout(&compiled(HEADERS)),
        Ok(layouts::layout((8, 2), false).unwrap())
    );
}

#[test]
fn what_is_only_declared_or_missing_is_blank() {
    let code = "typedef struct _zend_op zend_op;
struct _string { unsigned long len; union { struct { int gap; char val[1]; }; long other; }; };
typedef const struct _string zend_string;
typedef struct { zend_string *name; } zend_internal_arg_info;
zend_op *op; zend_string *string; zend_internal_arg_info *info;";
    let dwarf = compiled(code);
    assert_eq!(
        entries(&dwarf),
        [
            ("zend_string.len", 0),
            ("zend_string.val", 12),
            ("sizeof zend_internal_arg_info", 8)
        ],
        "a name that is no C string is none"
    );
    assert_eq!(
        layout(&dwarf).unwrap_err(),
        MissingOffset("zend_executor_globals.current_execute_data")
    );
}

#[test]
fn no_bytes_make_it_fail_or_last() {
    let dwarf = compiled(HEADERS);
    let bytes = |id: SectionId| -> Vec<u8> {
        let reader = match id {
            SectionId::DebugInfo => dwarf.debug_info.reader(),
            SectionId::DebugAbbrev => dwarf.debug_abbrev.reader(),
            SectionId::DebugStr => dwarf.debug_str.reader(),
            _ => return Vec::new(),
        };
        reader.to_slice().unwrap().into_owned()
    };
    let (info, abbrev, text) = (
        bytes(SectionId::DebugInfo),
        bytes(SectionId::DebugAbbrev),
        bytes(SectionId::DebugStr),
    );
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..60 {
        let (mut info, mut abbrev) = (info.clone(), abbrev.clone());
        for _ in 0..20 {
            let at = random(info.len());
            info[at] = u8::try_from(random(256)).unwrap();
        }
        let at = random(abbrev.len());
        abbrev[at] = u8::try_from(random(256)).unwrap();
        info.truncate(random(info.len()).max(info.len() / 2));
        let dwarf = Dwarf::load(|id| {
            let bytes: &[u8] = match id {
                SectionId::DebugInfo => &info,
                SectionId::DebugAbbrev => &abbrev,
                SectionId::DebugStr => &text,
                _ => &[],
            };
            Ok::<_, ()>(EndianSlice::new(bytes, LittleEndian))
        })
        .unwrap();
        let found = entries(&dwarf);
        assert!(found.iter().all(|(_, value)| u64::from(*value) <= MAX_OFFSET));
    }
}
