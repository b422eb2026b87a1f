//! Looks into a PHP executable before it is run: which build it is, and whether it
//! offers what an engine object needs.
//!
//! Reading the file tells, without running anything, that a wrong pair would crash or
//! misbehave: an engine object is compiled against one API number and one thread safety.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use object::read::{ReadCache, ReadRef};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

/// What an engine object calls in its host.
const NEEDED: [&str; 3] = ["sapi_startup", "php_module_startup", "php_execute_script"];
/// Largest read-only section that is searched; the largest PHP has about 10 MB.
const MAX_SECTION_BYTES: u64 = 512 * 1024 * 1024;

/// `ZEND_MODULE_BUILD_ID` (Zend/zend_modules.h): what extensions, and engine objects,
/// have to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId {
    /// `ZEND_MODULE_API_NO`, for example 20220829.
    pub api: u32,
    /// Whether it is thread safe.
    pub zts: bool,
    /// Whether it was configured with `--enable-debug`.
    pub debug: bool,
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zts = if self.zts { "TS" } else { "NTS" };
        let debug = if self.debug { ",debug" } else { "" };
        write!(f, "API{},{zts}{debug}", self.api)
    }
}

/// Why a file cannot host an engine.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is a script, say, or damaged.
    #[error("it is no executable that could be read: {0}")]
    NotElf(#[from] object::Error),
    /// It does not say which PHP it is.
    #[error("it has no PHP build id in it")]
    NoBuildId,
    /// It was linked without exporting what extensions need.
    #[error("it does not export {symbol} (a static build, or not a PHP that can load extensions)")]
    Lacks {
        /// The missing symbol.
        symbol: &'static str,
    },
}

/// Reads the build id of a PHP executable and checks what it exports.
pub(super) fn inspect(path: &Path) -> Result<BuildId, InspectError> {
    let cache = ReadCache::new(File::open(path)?);
    inspect_elf(&cache)
}

fn inspect_elf<'data, R: ReadRef<'data>>(data: R) -> Result<BuildId, InspectError> {
    let elf = object::File::parse(data)?;
    let constants = elf.sections().filter(|section| {
        matches!(
            section.kind(),
            SectionKind::ReadOnlyData | SectionKind::ReadOnlyString
        ) && section.size() <= MAX_SECTION_BYTES
    });
    let mut build = None;
    for section in constants {
        build = find_build_id(section.data()?);
        if build.is_some() {
            break;
        }
    }
    let build = build.ok_or(InspectError::NoBuildId)?;
    // With thread safety the globals are found by an offset.
    let globals = if build.zts {
        "executor_globals_offset"
    } else {
        "executor_globals"
    };
    let mut missing: Vec<&'static str> = NEEDED.into_iter().chain([globals]).collect();
    for symbol in elf.dynamic_symbols().filter(|symbol| symbol.is_definition()) {
        let name = symbol.name_bytes()?;
        missing.retain(|needed| needed.as_bytes() != name);
    }
    match missing.first() {
        None => Ok(build),
        Some(symbol) => Err(InspectError::Lacks { symbol }),
    }
}

/// The first text of the form `API20220829,NTS`, with or without `,debug` behind it.
fn find_build_id(bytes: &[u8]) -> Option<BuildId> {
    const MARK: &[u8] = b"API";
    let mut rest = bytes;
    while let Some(start) = rest.iter().position(|byte| *byte == MARK[0]) {
        rest = &rest[start..];
        if let Some(build) = rest.strip_prefix(MARK).and_then(parse_build_id) {
            return Some(build);
        }
        rest = &rest[1..];
    }
    None
}

fn parse_build_id(text: &[u8]) -> Option<BuildId> {
    let (digits, rest) = text.split_at_checked(8)?;
    let digits = digits
        .iter()
        .all(u8::is_ascii_digit)
        .then(|| std::str::from_utf8(digits).ok())??;
    let rest = rest.strip_prefix(b",")?;
    let (zts, rest) = match rest.strip_prefix(b"NTS") {
        Some(rest) => (false, rest),
        None => (true, rest.strip_prefix(b"TS")?),
    };
    let debug = rest.starts_with(b",debug");
    Some(BuildId {
        api: digits.parse().ok()?,
        zts,
        debug,
    })
}

#[cfg(test)]
mod tests {
    use object::write::{Object as Elf, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope};

    use super::*;

    #[test]
    fn build_ids_are_found_among_their_likes() {
        let nts = BuildId {
            api: 20_220_829,
            zts: false,
            debug: false,
        };
        let cases: [(&[u8], Option<BuildId>); 8] = [
            (b"\0API20220829,NTS\0", Some(nts)),
            // A Zend extension's id has a digit more; it must not be taken for a module's.
            (b"API420220829,NTS\0API20220829,NTS\0", Some(nts)),
            (b"API420220829,NTS\0", None),
            (
                b"API20230831,TS\0",
                Some(BuildId {
                    api: 20_230_831,
                    zts: true,
                    debug: false,
                }),
            ),
            (
                b"API20240924,NTS,debug\0",
                Some(BuildId {
                    api: 20_240_924,
                    zts: false,
                    debug: true,
                }),
            ),
            (b"AAPIAPI20220829,NTS", Some(nts)),
            (b"API2022", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(
                find_build_id(bytes),
                expected,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        assert_eq!(nts.to_string(), "API20220829,NTS");
    }

    #[test]
    fn a_file_without_dynamic_symbols_is_told_what_it_lacks() {
        // A relocatable object has a symbol table, but not the dynamic one.
        let mut elf = Elf::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let section = elf.add_section(vec![], b".rodata".to_vec(), SectionKind::ReadOnlyData);
        elf.append_section_data(section, b"\0API20220829,NTS\0", 1);
        elf.add_symbol(Symbol {
            name: b"sapi_startup".to_vec(),
            value: 0,
            size: 1,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
        let bytes = elf.write().expect("writes");
        let error = inspect_elf(&*bytes).expect_err("cannot host");
        assert!(
            matches!(
                error,
                InspectError::Lacks {
                    symbol: "sapi_startup"
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        assert!(matches!(
            inspect_elf(&b"#!/bin/sh\n"[..]),
            Err(InspectError::NotElf(_))
        ));
        let own = std::env::current_exe().expect("has one");
        let error = inspect(&own).expect_err("not PHP");
        assert!(!matches!(error, InspectError::Read(_)), "{error}");
        assert!(matches!(
            inspect(Path::new("/no/such/file")),
            Err(InspectError::Read(_))
        ));
    }
}
