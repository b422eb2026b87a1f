//! Which parameters a function wants hidden: `#[SensitiveParameter]`, kept in a table of
//! attributes with the number of the parameter (`zend_get_parameter_attribute_str`,
//! Zend/zend_attributes.c). Builtins have it, too (`PDO::__construct`).

use glasspool_abi::zend::PhpBuild;

use crate::memory::{Batch, ReadError, Slice, TargetAddr, TargetMemory};
use crate::php::offsets::{u32_at, u64_at};
use crate::php::walk::implausible;

/// PHP 8.0: before it functions have no attributes.
pub(super) const FIRST_WITH_ATTRIBUTES: u32 = 20_200_930;
/// PHP 8.2: lists are kept as bare values, without keys.
const FIRST_WITH_BARE_LISTS: u32 = 20_220_829;
/// `HASH_FLAG_PACKED` (Zend/zend_hash.h).
const PACKED: u32 = 1 << 2;
/// Attributes of one function that are looked at.
const MAX_ATTRIBUTES: u32 = 64;

const NAME: &[u8] = b"sensitiveparameter";

/// What a function wants hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hidden {
    /// The parameters with these numbers, from 1.
    Parameters(Vec<u32>),
    /// That cannot be told.
    Unknown,
}

impl Hidden {
    /// Whether the parameter with this number is to be hidden, if that can be told.
    pub(super) fn hides(&self, parameter: usize) -> Option<bool> {
        match self {
            Hidden::Parameters(numbers) => Some(numbers.iter().any(|&number| number as usize == parameter)),
            Hidden::Unknown => None,
        }
    }
}

/// Offsets into the tables.
#[derive(Debug, Clone, Copy)]
struct Fields {
    data: usize,
    used: usize,
    flags: usize,
    header_len: usize,
    bucket: usize,
    zval: usize,
    bare_lists: bool,
    name: usize,
    number: usize,
    string_len: usize,
    string_val: usize,
}

impl Fields {
    fn of(build: &PhpBuild) -> Option<Fields> {
        let layout = &build.layout;
        let at = |field: Option<u32>| field.filter(|&field| field <= 1_024).map(|field| field as usize);
        let (data, used, flags) = (
            at(layout.array_data)?,
            at(layout.array_used)?,
            at(layout.array_flags)?,
        );
        Some(Fields {
            data,
            used,
            flags,
            header_len: data.max(used).max(flags) + 8,
            bucket: at(layout.bucket_size).filter(|&size| size >= 16)?,
            zval: at(layout.zval_size).filter(|&size| size >= 16)?,
            bare_lists: build.api >= FIRST_WITH_BARE_LISTS,
            name: at(layout.attribute_lcname)?,
            number: at(layout.attribute_offset)?,
            string_len: at(Some(layout.string_len))?,
            string_val: at(Some(layout.string_val))?,
        })
    }
}

/// What each function wants hidden, given the address of its table of attributes, or 0.
/// No reads at all if none has one.
pub(super) fn read<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    tables: impl Iterator<Item = u64>,
) -> Result<Vec<Hidden>, ReadError> {
    let tables: Vec<u64> = tables.collect();
    let none = |table: &u64| match table {
        0 => Hidden::Parameters(Vec::new()),
        _ => Hidden::Unknown,
    };
    let mut hidden: Vec<Hidden> = tables.iter().map(none).collect();
    let Some(fields) = Fields::of(build).filter(|_| tables.iter().any(|&table| table != 0)) else {
        return Ok(hidden);
    };

    let mut headers = Batch::default();
    let slices: Vec<Option<Slice>> = tables
        .iter()
        .map(|&table| want(&mut headers, table, fields.header_len))
        .collect();
    mem.read_batch(&mut headers)?;

    // The values of a table: pointers to attributes.
    let mut elements = Batch::default();
    let lists: Vec<Option<(Slice, usize, usize)>> = slices
        .into_iter()
        .map(|slice| {
            let header = headers.get(slice?);
            let used = u32_at(header, fields.used).filter(|&used| used <= MAX_ATTRIBUTES)? as usize;
            let packed = u32_at(header, fields.flags)? & PACKED != 0;
            let size = if packed && fields.bare_lists {
                fields.zval
            } else {
                fields.bucket
            };
            let slice = want(&mut elements, u64_at(header, fields.data)?, used * size)?;
            Some((slice, used, size))
        })
        .collect();
    mem.read_batch(&mut elements)?;

    let attribute_len = fields.name.max(fields.number) + 8;
    let mut attributes = Batch::default();
    let lists: Vec<Option<Vec<Slice>>> = lists
        .into_iter()
        .map(|list| {
            let (slice, used, size) = list?;
            let bytes = elements.get(slice);
            (0..used)
                .map(|index| want(&mut attributes, u64_at(bytes, index * size)?, attribute_len))
                .collect()
        })
        .collect();
    mem.read_batch(&mut attributes)?;

    let mut names = Batch::default();
    let lists: Vec<Option<Vec<(u32, Slice)>>> = lists
        .into_iter()
        .map(|list| {
            let attribute = |slice| {
                let bytes = attributes.get(slice);
                let name = want(
                    &mut names,
                    u64_at(bytes, fields.name)?,
                    fields.string_val + NAME.len(),
                )?;
                Some((u32_at(bytes, fields.number)?, name))
            };
            list?.into_iter().map(attribute).collect()
        })
        .collect();
    mem.read_batch(&mut names)?;

    for (hidden, list) in hidden.iter_mut().zip(lists) {
        let numbers = list.and_then(|list| {
            let mut numbers = Vec::new();
            for (number, name) in list {
                if is_sensitive(names.get(name), &fields)? {
                    numbers.push(number);
                }
            }
            Some(numbers)
        });
        if let Some(numbers) = numbers {
            *hidden = Hidden::Parameters(numbers);
        }
    }
    Ok(hidden)
}

/// Whether a name is the one; `None` if it is no name: then the offsets do not fit, or
/// the table has changed.
fn is_sensitive(bytes: &[u8], fields: &Fields) -> Option<bool> {
    let len = usize::try_from(u64_at(bytes, fields.string_len)?).ok()?;
    if len == 0 || len > 1_024 {
        return None;
    }
    let text = bytes.get(fields.string_val..)?;
    let text = text.get(..len.min(NAME.len()))?;
    let plausible = text.iter().all(|&byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_\\".contains(&byte) || byte >= 0x80
    });
    plausible.then(|| len == NAME.len() && text == NAME)
}

fn want(batch: &mut Batch, addr: u64, len: usize) -> Option<Slice> {
    let pointer = addr != 0 && implausible(addr).is_none();
    pointer.then(|| batch.want(TargetAddr(addr), len))
}
