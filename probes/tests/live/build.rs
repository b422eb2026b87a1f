//! The build of the machine's own PHP 8.2, as an engine would tell it.

use std::fs;

use glasspool_abi::Pid;
use glasspool_abi::zend::{Layout, PhpBuild};
use glasspool_probes::php::layouts;
use object::{Object, ObjectSegment, ObjectSymbol};

/// What an engine would say of a `php` 8.2: its offsets as far as every reader needs them,
/// and those of builtins.
pub(crate) fn build(pid: Pid) -> PhpBuild {
    let needed = |(name, _): &(&str, Option<u32>)| {
        Layout::NAMES.contains(name) || *name == "zend_internal_function.handler"
    };
    let rows = layouts::rows((8, 2)).filter(needed);
    PhpBuild {
        version: "8.2".to_owned(),
        api: 20_220_829,
        zts: false,
        executor_globals: executor_globals(pid),
        layout: Layout::from_entries(rows.filter_map(|(name, value)| Some((name, value?)))).unwrap(),
    }
}

/// Where the executable's `executor_globals` is: its symbol, moved by the load bias.
fn executor_globals(pid: Pid) -> u64 {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let bytes = fs::read(&exe).unwrap();
    let elf = object::File::parse(bytes.as_slice()).unwrap();
    let mut symbols = elf.dynamic_symbols();
    let symbol = symbols.find(|symbol| symbol.name() == Ok("executor_globals"));
    let first = elf.segments().map(|segment| segment.address()).min().unwrap() & !0xfff;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let head = maps
        .lines()
        .find(|line| line.contains(" 00000000 ") && line.ends_with(exe.to_str().unwrap()))
        .unwrap();
    let start = u64::from_str_radix(head.split('-').next().unwrap(), 16).unwrap();
    start - first + symbol.unwrap().address()
}
