//! The dialect's parser for the fuzz target, which sees only what is public: lines into sections, without files.

use super::directives::{PoolLines, RawGlobal, RawPool};
use super::effective::{Environment, Notice};
use super::error::{ConfigError, Fault, Place};
use super::ini::{self, Statement};
use super::{access_format, assign, php_values};

/// Reads a file's text as a load would, but for `include`, which is left out: what a fuzzer makes up must not be
/// opened. Gives every refusal, since a fuzzer gets further when it need not be right from the first line on.
pub fn read(text: &[u8], environment: &Environment) -> Vec<ConfigError> {
    let (mut global, mut pools) = (RawGlobal::default(), Vec::<RawPool>::new());
    let (mut notices, mut refused) = (Vec::<Notice>::new(), Vec::new());
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let place = Place::line(std::path::Path::new("fuzz"), index + 1);
        let done = ini::parse_line(line, environment).and_then(|statement| {
            statement.map_or(Ok(()), |statement| {
                one(statement, &mut global, &mut pools, &place, &mut notices)
            })
        });
        refused.extend(done.err().map(|fault| ConfigError::at(&place, fault)));
    }
    for pool in &pools {
        let format = pool.lines.access_format.as_ref();
        let _warning = format.map(|format| access_format::check(&format.value));
        php_values::in_order(&pool.lines);
    }
    refused
}

fn one(
    statement: Statement,
    global: &mut RawGlobal,
    pools: &mut Vec<RawPool>,
    place: &Place,
    notices: &mut Vec<Notice>,
) -> Result<(), Fault> {
    let pool = pools.last_mut();
    match (statement, pool) {
        (Statement::Section(name), _) => {
            pools.push(RawPool {
                name,
                place: place.clone(),
                lines: PoolLines::default(),
            });
            Ok(())
        }
        (Statement::Scalar { name, .. }, _) if name == "include" => Ok(()),
        (Statement::Scalar { name, value }, None) => assign::global(global, &name, value, place, notices),
        (Statement::Scalar { name, value }, Some(pool)) => assign::pool(pool, &name, value, place, notices),
        (Statement::Array { name, key, value }, pool) => assign::array(pool, &name, &key, value),
    }
}
