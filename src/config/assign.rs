//! One statement into its section: which directive it is, whether its value fits, and where it is kept.

use super::directives::{self, Array, Directive, GLOBAL, POOL, Placed, RawGlobal, RawPool, Scalar};
use super::effective::{LogLevel, Notice};
use super::error::{BadValue, Fault, Nearest, Place, Shown};
use super::values;

/// A scalar of `[global]`.
pub(super) fn global(
    global: &mut RawGlobal,
    name: &str,
    value: String,
    place: &Place,
    notices: &mut Vec<Notice>,
) -> Result<(), Fault> {
    let elsewhere = directives::find(POOL, name).map(|_| "a pool section");
    let directive = known(GLOBAL, name, elsewhere)?;
    set(global, directive, value, None, place, notices)
}

/// A scalar of a pool.
pub(super) fn pool(
    pool: &mut RawPool,
    name: &str,
    value: String,
    place: &Place,
    notices: &mut Vec<Notice>,
) -> Result<(), Fault> {
    let elsewhere = directives::find(GLOBAL, name).map(|_| "[global]");
    let directive = known(POOL, name, elsewhere)?;
    set(
        &mut pool.lines,
        directive,
        value,
        Some(&pool.name),
        place,
        notices,
    )
}

/// `name[key] = value` of a pool; `None` is `[global]`, which has none.
pub(super) fn array(pool: Option<&mut RawPool>, name: &str, key: &str, value: String) -> Result<(), Fault> {
    let known = Array::ALL.into_iter().find(|array| array.name() == name);
    if key.is_empty() && known != Some(Array::SuppressPath) {
        return Err(Fault::NoKey {
            name: Shown::from(name),
        });
    }
    let Some(pool) = pool else {
        return Err(Fault::GlobalArray {
            name: Shown::from(name),
            key: Shown::from(key),
        });
    };
    let Some(array) = known else {
        let nearest = Nearest::among(name, Array::ALL.map(Array::name));
        return Err(Fault::UnknownDirective {
            name: Shown::from(name),
            nearest,
        });
    };
    // `$pool` means the pool in values; php-fpm leaves flags alone, where it could only be wrong.
    let text = |value: String| value.replace("$pool", &pool.name);
    let lines = &mut pool.lines;
    match array {
        Array::SuppressPath => lines.access_suppress.push(suppressed(key, text(value))?),
        Array::Env => {
            env_name(key, &value)?;
            lines.env.push((key.to_owned(), text(value)));
        }
        Array::PhpValue => lines.php_values.push((key.to_owned(), text(value))),
        Array::PhpFlag => lines.php_values.push((key.to_owned(), flag(array, key, &value)?)),
        Array::PhpAdminValue => lines.php_admin_values.push((key.to_owned(), text(value))),
        Array::PhpAdminFlag => {
            let value = flag(array, key, &value)?;
            lines.php_admin_values.push((key.to_owned(), value));
        }
    }
    Ok(())
}

fn suppressed(key: &str, path: String) -> Result<String, Fault> {
    if !key.is_empty() {
        return Err(Fault::SuppressKey {
            key: Shown::from(key),
        });
    }
    if !path.starts_with('/') {
        return Err(Fault::SuppressValue {
            found: Shown::from(path.as_str()),
        });
    }
    Ok(path)
}

/// Refused though php-fpm takes it: a `=` in the name, which makes another variable than the one named.
fn env_name(key: &str, value: &str) -> Result<(), Fault> {
    let key_shown = Shown::from(key);
    if value.is_empty() {
        return Err(Fault::EmptyEnv { key: key_shown });
    }
    if key.contains('=') {
        return Err(Fault::EnvName { key: key_shown });
    }
    Ok(())
}

fn flag(array: Array, key: &str, value: &str) -> Result<String, Fault> {
    let on = values::boolean(value).map_err(|reason| Fault::ArrayValue {
        name: array.name(),
        key: Shown::from(key),
        reason,
        found: Shown::from(value),
    })?;
    Ok(String::from(if on { "1" } else { "0" }))
}

fn known<S>(
    table: &'static [Directive<S>],
    name: &str,
    elsewhere: Option<&'static str>,
) -> Result<&'static Directive<S>, Fault> {
    directives::find(table, name).ok_or_else(|| match elsewhere {
        Some(section) => Fault::WrongSection {
            name: Shown::from(name),
            section,
        },
        None => {
            let names = table.iter().map(|directive| directive.name);
            Fault::UnknownEntry {
                name: Shown::from(name),
                nearest: Nearest::among(name, names),
            }
        }
    })
}

fn set<S>(
    section: &mut S,
    directive: &'static Directive<S>,
    value: String,
    pool: Option<&str>,
    place: &Place,
    notices: &mut Vec<Notice>,
) -> Result<(), Fault> {
    let bad = |reason| Fault::Value {
        name: directive.name,
        reason,
        found: Shown::from(value.as_str()),
    };
    match &directive.scalar {
        Scalar::Text(field) => {
            let text = match pool {
                Some(pool) => value.replace("$pool", pool),
                None if value.contains("$pool") => return Err(bad(BadValue::PoolVariable)),
                None => value,
            };
            *field(section) = placed(text, place);
        }
        Scalar::Integer(field) => *field(section) = placed(values::integer(&value).map_err(bad)?, place),
        Scalar::Count(field) => *field(section) = placed(values::count(&value).map_err(bad)?, place),
        Scalar::Time(field) => {
            let time = values::time(&value).map_err(bad)?;
            if !time.plain {
                let (name, shown, seconds) =
                    (directive.name, Shown::from(value.as_str()), time.value.as_secs());
                notices.push(Notice {
                    level: LogLevel::Warning,
                    place: Some(place.clone()),
                    text: format!("[{place}] '{name} = {shown}' counts as {seconds}s, as in php-fpm"),
                });
            }
            *field(section) = placed(time.value, place);
        }
        Scalar::Boolean(field) => *field(section) = placed(values::boolean(&value).map_err(bad)?, place),
        Scalar::LogLevel(field) => *field(section) = placed(values::log_level(&value).map_err(bad)?, place),
        Scalar::Facility(field) => *field(section) = placed(values::facility(&value).map_err(bad)?, place),
        Scalar::CoreLimit(field) => *field(section) = placed(values::core_limit(&value).map_err(bad)?, place),
        Scalar::Manager(field) => *field(section) = placed(values::manager(&value).map_err(bad)?, place),
        Scalar::Mode(field) => {
            values::mode(&value).map_err(bad)?;
            *field(section) = placed(value, place);
        }
        Scalar::OtherPlatform(why) => {
            return Err(Fault::OtherPlatform {
                name: directive.name,
                why,
            });
        }
    }
    Ok(())
}

fn placed<T>(value: T, place: &Place) -> Option<Placed<T>> {
    Some(Placed {
        value,
        place: place.clone(),
    })
}
