//! The functions of one object file that have names.

use std::ops::Range;

use object::elf::{FileHeader64, STT_FUNC};
use object::read::StringTable;
use object::read::elf::{ElfFile64, Sym, SymbolTable};
use object::{Endianness, Object, ObjectSection, ReadRef};

/// Symbols that are kept of one file; PHP has 5,000, with debug information 30,000.
const MAX_SYMBOLS: usize = 400_000;
/// Longer names are no names of C functions.
const MAX_NAME: usize = 512;
/// Larger string tables are not read.
const MAX_STRINGS: u64 = 64 * 1024 * 1024;
/// Bytes of names that are kept of one file; PHP has 60 KiB.
const MAX_NAMES: usize = 16 * 1024 * 1024;

/// Functions by address in the file, of each address range the plainest name. Names are
/// in one piece: a string of its own for each costs more than what it says.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// In ascending order.
    symbols: Box<[Symbol]>,
    names: Box<str>,
}

#[derive(Debug)]
struct Symbol {
    start: u64,
    len: u32,
    /// Where its name begins, and how long that is.
    name: u32,
    name_len: u16,
}

/// A symbol whose name is elsewhere.
struct Named<'a> {
    range: Range<u64>,
    name: &'a str,
}

impl Symbols {
    /// Adds the functions of a symbol table of `elf`.
    pub(super) fn add<'a, R: ReadRef<'a>>(
        &mut self,
        elf: &ElfFile64<'a, Endianness, R>,
        table: &SymbolTable<'a, FileHeader64<Endianness>, R>,
    ) {
        if table.is_empty() {
            return;
        }
        // Read at once: one by one they take two system calls each.
        let strings = elf
            .section_by_index(table.string_section())
            .ok()
            .filter(|section| section.size() <= MAX_STRINGS)
            .and_then(|section| section.data().ok())
            .unwrap_or_default();
        let strings = StringTable::new(strings, 0, strings.len() as u64);
        let endian = elf.endian();
        let functions = table
            .iter()
            .filter(|symbol| symbol.st_type() == STT_FUNC && symbol.is_definition(endian))
            .filter_map(|symbol| {
                let name = std::str::from_utf8(symbol.name(endian, strings).ok()?).ok()?;
                let (start, len) = (symbol.st_value(endian), symbol.st_size(endian));
                let is_usable = len > 0 && !name.is_empty() && name.len() <= MAX_NAME;
                is_usable.then_some(Named {
                    range: start..start.checked_add(len)?,
                    name,
                })
            });
        let all = Symbols::of(self.iter().chain(functions).take(MAX_SYMBOLS).collect());
        *self = all;
    }

    fn of(mut all: Vec<Named<'_>>) -> Symbols {
        let key = |symbol: &Named<'_>| {
            // Of several names for one function the plainest comes first: poll, __poll.
            let plain = (symbol.name.starts_with('_'), symbol.name.len());
            (symbol.range.start, symbol.range.end, plain)
        };
        all.sort_by_key(key);
        all.dedup_by(|later, first| later.range == first.range);
        let wanted: usize = all.iter().map(|symbol| symbol.name.len()).sum();
        let mut names = String::with_capacity(wanted.min(MAX_NAMES));
        let symbols = all.iter().filter_map(|symbol| {
            if symbol.name.len() > MAX_NAMES - names.len() {
                return None;
            }
            let name = u32::try_from(names.len()).ok()?;
            names.push_str(symbol.name);
            Some(Symbol {
                start: symbol.range.start,
                len: u32::try_from(symbol.range.end - symbol.range.start).unwrap_or(u32::MAX),
                name,
                name_len: u16::try_from(symbol.name.len()).ok()?,
            })
        });
        Symbols {
            symbols: symbols.collect(),
            names: names.into(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Named<'_>> {
        self.symbols.iter().map(|symbol| Named {
            range: symbol.start..symbol.start.saturating_add(symbol.len.into()),
            name: self.name(symbol),
        })
    }

    fn name(&self, symbol: &Symbol) -> &str {
        let start = symbol.name as usize;
        &self.names[start..start + usize::from(symbol.name_len)]
    }

    /// The symbol that an address is inside of, without control characters.
    pub(super) fn at(&self, address: u64) -> Option<String> {
        let after = self.symbols.partition_point(|symbol| symbol.start <= address);
        // A short symbol may begin inside of a longer one; a few steps back are enough.
        let inside = |symbol: &&Symbol| address - symbol.start < symbol.len.into();
        let symbol = self.symbols[..after].iter().rev().take(4).find(inside)?;
        Some(self.name(symbol).replace(char::is_control, ""))
    }

    /// What they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.symbols) + self.names.len()
    }

    /// Where some function of more than a few instructions begins.
    #[cfg(test)]
    pub(super) fn a_long_one(&self) -> Option<u64> {
        Some(self.symbols.iter().find(|symbol| symbol.len > 64)?.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_names_only_what_is_inside_of_it() {
        let named = |range, name| Named { range, name };
        let symbols = Symbols::of(vec![
            named(0x40..0x80, "outer"),
            named(0x10..0x20, "__poll"),
            named(0x10..0x20, "poll"),
            named(0x44..0x48, "in\x1bner"),
        ]);
        let at = |address| symbols.at(address);
        assert_eq!(at(0x10).as_deref(), Some("poll"));
        assert_eq!(at(0x1f).as_deref(), Some("poll"));
        assert_eq!(at(0x20), None, "the nearest symbol is not the right one");
        assert_eq!(at(0), None);
        assert_eq!(at(0x45).as_deref(), Some("inner"));
        assert_eq!(at(0x50).as_deref(), Some("outer"));
        // Nothing is kept of a name that is not used.
        assert_eq!(symbols.bytes(), 3 * size_of::<Symbol>() + "pollouterin-ner".len());
    }

    #[test]
    fn names_are_kept_up_to_a_size() {
        let long = "n".repeat(MAX_NAME);
        let count = MAX_NAMES / MAX_NAME + 10;
        let all = (0..count as u64).map(|at| Named {
            range: at * 4..at * 4 + 4,
            name: &long,
        });
        let symbols = Symbols::of(all.collect());
        assert_eq!(symbols.names.len(), MAX_NAMES);
        assert_eq!(symbols.at(0), Some(long));
        assert_eq!(symbols.at(count as u64 * 4 - 1), None);
    }
}
