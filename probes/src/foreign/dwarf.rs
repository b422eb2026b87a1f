//! Offsets out of debug information, for a PHP that no table is for: a version that this
//! program is older than, a debug build, a build with patches.
//!
//! The names of a layout are C: `zend_op_array.filename` is member `filename` of the type
//! `zend_op_array`, `zend_execute_data.This.u1.type_info` goes through two more. The types
//! are looked for by name in all units until each was found whole once. A name that is
//! not there stays blank, as in the tables.

use std::collections::HashMap;
use std::rc::Rc;

use gimli::{
    AttributeValue, DebuggingInformationEntry as Entry, Dwarf, Reader, Unit, UnitHeader, UnitOffset,
    constants as dw,
};
use glasspool_abi::zend::{Layout, MissingOffset};

/// Files that PHP and what is linked into it are compiled from; a distribution's have
/// some 1,500.
const MAX_UNITS: usize = 100_000;
/// Types, functions and variables of one unit; PHP's largest has 10,000.
const MAX_ENTRIES: usize = 200_000;
/// Members of one struct; `zend_executor_globals` has 120.
const MAX_MEMBERS: usize = 4_096;
/// `const`, `volatile` and `typedef` in front of a type, and structs in structs.
const MAX_DEPTH: usize = 16;
/// Units that are kept while references into them are followed.
const MAX_KEPT: usize = 64;
/// The largest struct of interest has 2,200 bytes.
const MAX_OFFSET: u64 = 64 * 1024;

/// Names of builtins' parameters are read as C strings, and are not in every version.
const IS_C_STRING: &str = "zend_internal_arg_info.name";

/// The layout that the debug information describes, or the first name that it lacks.
/// Takes some milliseconds, of a whole PHP some hundred.
pub(crate) fn layout<R: Reader<Offset = usize>>(dwarf: &Dwarf<R>) -> Result<Layout, MissingOffset> {
    Layout::from_entries(entries(dwarf))
}

/// All names that are there, and their values.
pub(super) fn entries<R: Reader<Offset = usize>>(dwarf: &Dwarf<R>) -> Vec<(&'static str, u32)> {
    let names = Layout::NAMES.iter().chain(Layout::OPTIONAL_NAMES).copied();
    let mut wanted: HashMap<&str, Vec<&'static str>> = HashMap::new();
    for name in names {
        wanted.entry(type_of(name)).or_default().push(name);
    }
    let mut found = Vec::new();
    let mut headers = Vec::new();
    let mut units = dwarf.units();
    while let (Ok(Some(header)), true) = (units.next(), headers.len() < MAX_UNITS) {
        headers.push(header);
    }
    let mut types = Types {
        dwarf,
        headers,
        kept: HashMap::new(),
    };
    for index in 0..types.headers.len() {
        if wanted.is_empty() {
            break;
        }
        // A unit that cannot be read says nothing of the next one.
        for (name, place) in types.named_types(index, &wanted).unwrap_or_default() {
            let Some(names) = wanted.get(name.as_str()) else {
                continue;
            };
            // A type that is only declared here is whole elsewhere.
            let Some(whole) = types.whole(place) else {
                continue;
            };
            found.extend(
                names
                    .iter()
                    .filter_map(|name| Some((*name, types.value(&whole, name)?))),
            );
            wanted.remove(name.as_str());
        }
    }
    found
}

/// The C type that a name of a layout begins with.
fn type_of(name: &str) -> &str {
    let name = name.strip_prefix("sizeof ").unwrap_or(name);
    name.split_once('.').map_or(name, |(first, _)| first)
}

struct Types<'a, R: Reader<Offset = usize>> {
    dwarf: &'a Dwarf<R>,
    /// By offset.
    headers: Vec<UnitHeader<R>>,
    kept: HashMap<usize, Rc<Unit<R>>>,
}

/// An entry of debug information: unit and offset in there.
struct Place<R: Reader<Offset = usize>> {
    unit: Rc<Unit<R>>,
    at: UnitOffset,
}

impl<R: Reader<Offset = usize>> Clone for Place<R> {
    fn clone(&self) -> Place<R> {
        Place {
            unit: Rc::clone(&self.unit),
            at: self.at,
        }
    }
}

impl<R: Reader<Offset = usize>> Place<R> {
    fn entry(&self) -> Option<Entry<R>> {
        self.unit.entry(self.at).ok()
    }
}

impl<R: Reader<Offset = usize>> Types<'_, R> {
    fn unit(&mut self, index: usize) -> Option<Rc<Unit<R>>> {
        if let Some(unit) = self.kept.get(&index) {
            return Some(Rc::clone(unit));
        }
        let unit = Rc::new(self.dwarf.unit(self.headers.get(index)?.clone()).ok()?);
        if self.kept.len() == MAX_KEPT {
            self.kept.clear();
        }
        self.kept.insert(index, Rc::clone(&unit));
        Some(unit)
    }

    /// The types of a unit that have one of these names.
    fn named_types(
        &mut self,
        index: usize,
        wanted: &HashMap<&str, Vec<&'static str>>,
    ) -> Option<Vec<(String, Place<R>)>> {
        let unit = self.unit(index)?;
        let mut found = Vec::new();
        let mut entries = unit.entries();
        entries.next_dfs().ok()??;
        let mut next = entries.next_dfs().ok()?.cloned();
        for _ in 0..MAX_ENTRIES {
            let Some(entry) = next else { break };
            if entry.depth() != 1 {
                break;
            }
            let is_type = matches!(
                entry.tag(),
                dw::DW_TAG_typedef | dw::DW_TAG_structure_type | dw::DW_TAG_union_type
            );
            if is_type
                && let Some(name) = self.name(&unit, &entry)
                && wanted.contains_key(name.as_str())
            {
                let at = entry.offset();
                let unit = Rc::clone(&unit);
                found.push((name, Place { unit, at }));
            }
            next = entries.next_sibling().ok().flatten().cloned();
        }
        Some(found)
    }

    fn name(&self, unit: &Unit<R>, entry: &Entry<R>) -> Option<String> {
        let value = entry.attr_value(dw::DW_AT_name)?;
        let text = self.dwarf.attr_string(unit, value).ok()?;
        Some(text.to_string_lossy().ok()?.into_owned())
    }

    /// The type of an entry, in whatever unit it is.
    fn type_at(&mut self, place: &Place<R>, entry: &Entry<R>) -> Option<Place<R>> {
        match entry.attr_value(dw::DW_AT_type)? {
            AttributeValue::UnitRef(at) => Some(Place {
                unit: Rc::clone(&place.unit),
                at,
            }),
            AttributeValue::DebugInfoRef(target) => {
                let starts = |header: &UnitHeader<R>| header.debug_info_offset();
                let after = self
                    .headers
                    .partition_point(|header| starts(header).is_some_and(|start| start.0 <= target.0));
                let index = after.checked_sub(1)?;
                let at = target.to_unit_offset(self.headers.get(index)?)?;
                let unit = self.unit(index)?;
                Some(Place { unit, at })
            }
            _ => None,
        }
    }

    /// What is behind names and qualifiers; `None` if that is only declared.
    fn whole(&mut self, place: Place<R>) -> Option<Place<R>> {
        let mut place = place;
        for _ in 0..MAX_DEPTH {
            let entry = place.entry()?;
            match entry.tag() {
                dw::DW_TAG_typedef
                | dw::DW_TAG_const_type
                | dw::DW_TAG_volatile_type
                | dw::DW_TAG_restrict_type
                | dw::DW_TAG_atomic_type => place = self.type_at(&place, &entry)?,
                _ => return (!entry.has_attr(dw::DW_AT_declaration)).then_some(place),
            }
        }
        None
    }

    /// The value for a name of a layout, of its type.
    fn value(&mut self, whole: &Place<R>, name: &str) -> Option<u32> {
        if name.starts_with("sizeof ") {
            let size = whole.entry()?.attr_value(dw::DW_AT_byte_size)?.udata_value()?;
            return u32::try_from(size).ok().filter(|_| size <= MAX_OFFSET);
        }
        let (_, path) = name.split_once('.')?;
        let mut at = whole.clone();
        let mut sum = 0_u64;
        for member in path.split('.') {
            let (offset, of_type) = self.member(&at, member, 0)?;
            sum = sum.checked_add(offset).filter(|&sum| sum <= MAX_OFFSET)?;
            at = of_type;
        }
        if name == IS_C_STRING && !self.is_c_string(at) {
            return None;
        }
        u32::try_from(sum).ok()
    }

    /// Where a member of a struct or union is, also one of a nameless struct or union in
    /// it, and its type.
    fn member(&mut self, place: &Place<R>, wanted: &str, depth: usize) -> Option<(u64, Place<R>)> {
        let place = self.whole(place.clone()).filter(|_| depth < MAX_DEPTH)?;
        let mut entries = place.unit.entries_at_offset(place.at).ok()?;
        entries.next_dfs().ok()??;
        let mut next = entries.next_dfs().ok()?.cloned();
        for _ in 0..MAX_MEMBERS {
            let Some(entry) = next.filter(|entry| entry.depth() == 1) else {
                break;
            };
            if entry.tag() == dw::DW_TAG_member {
                let name = self.name(&place.unit, &entry);
                // Members of unions have none.
                let offset = match entry.attr_value(dw::DW_AT_data_member_location) {
                    Some(offset) => offset.udata_value(),
                    None => Some(0),
                };
                let found = match name {
                    Some(name) if name == wanted => Some((0, self.type_at(&place, &entry)?)),
                    Some(_) => None,
                    None => {
                        let inner = self.type_at(&place, &entry)?;
                        self.member(&inner, wanted, depth + 1)
                    }
                };
                if let Some((inner, of_type)) = found {
                    return Some((offset?.checked_add(inner)?, of_type));
                }
            }
            next = entries.next_sibling().ok().flatten().cloned();
        }
        None
    }

    fn is_c_string(&mut self, place: Place<R>) -> bool {
        let pointee = self.whole(place).and_then(|pointer| {
            let entry = pointer.entry()?;
            let pointee = self.type_at(&pointer, &entry)?;
            (entry.tag() == dw::DW_TAG_pointer_type).then_some(pointee)
        });
        let character = pointee
            .and_then(|pointee| self.whole(pointee))
            .and_then(|place| place.entry());
        character.is_some_and(|entry| {
            let size = entry
                .attr_value(dw::DW_AT_byte_size)
                .and_then(|size| size.udata_value());
            entry.tag() == dw::DW_TAG_base_type && size == Some(1)
        })
    }
}

#[cfg(test)]
#[path = "dwarf_tests.rs"]
mod tests;
