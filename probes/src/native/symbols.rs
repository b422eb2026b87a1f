//! The functions of one object file that have names.

use std::ops::Range;

use object::{ObjectSymbol, SymbolKind};

/// Symbols that are kept of one file; PHP has 5,000, with debug information 30,000.
const MAX_SYMBOLS: usize = 400_000;
/// Longer names are no names of C functions.
const MAX_NAME: usize = 512;

/// Functions by address in the file, of each address range the plainest name.
#[derive(Debug, Default)]
pub(super) struct Symbols(Vec<Symbol>);

#[derive(Debug, PartialEq, Eq)]
struct Symbol {
    range: Range<u64>,
    name: Box<str>,
}

impl Symbols {
    /// Adds the functions of a symbol table.
    pub(super) fn add<'a>(&mut self, table: impl Iterator<Item = impl ObjectSymbol<'a>>) {
        let room = MAX_SYMBOLS - self.0.len().min(MAX_SYMBOLS);
        let functions = table
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition() && symbol.size() > 0)
            .filter_map(|symbol| {
                let name = symbol.name().ok();
                let name = name.filter(|name| !name.is_empty() && name.len() <= MAX_NAME)?;
                let start = symbol.address();
                Some(Symbol {
                    range: start..start.checked_add(symbol.size())?,
                    name: name.replace(char::is_control, "").into(),
                })
            });
        self.0.extend(functions.take(room));
        self.sort();
    }

    fn sort(&mut self) {
        let key = |symbol: &Symbol| {
            // Of several names for one function the plainest comes first: poll, __poll.
            let plain = (symbol.name.starts_with('_'), symbol.name.len());
            (symbol.range.start, symbol.range.end, plain)
        };
        self.0.sort_by_key(key);
        self.0.dedup_by(|later, first| later.range == first.range);
    }

    /// The symbol that an address is inside of.
    pub(super) fn at(&self, address: u64) -> Option<&str> {
        let after = self.0.partition_point(|symbol| symbol.range.start <= address);
        // A short symbol may begin inside of a longer one; a few steps back are enough.
        let inside = |symbol: &&Symbol| symbol.range.contains(&address);
        Some(&*self.0[..after].iter().rev().take(4).find(inside)?.name)
    }

    /// Where some function of more than a few instructions begins.
    #[cfg(test)]
    pub(super) fn a_long_one(&self) -> Option<u64> {
        let long = |symbol: &&Symbol| symbol.range.end - symbol.range.start > 64;
        Some(self.0.iter().find(long)?.range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_names_only_what_is_inside_of_it() {
        let named = |range, name: &str| Symbol {
            range,
            name: name.into(),
        };
        let mut symbols = Symbols(vec![
            named(0x40..0x80, "outer"),
            named(0x10..0x20, "__poll"),
            named(0x10..0x20, "poll"),
            named(0x44..0x48, "inner"),
        ]);
        symbols.sort();
        assert_eq!(symbols.at(0x10), Some("poll"));
        assert_eq!(symbols.at(0x1f), Some("poll"));
        assert_eq!(symbols.at(0x20), None, "the nearest symbol is not the right one");
        assert_eq!(symbols.at(0), None);
        assert_eq!(symbols.at(0x45), Some("inner"));
        assert_eq!(symbols.at(0x50), Some("outer"));
    }
}
