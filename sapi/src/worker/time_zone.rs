//! Which time zone local times of a pool are in: the variable `TZ` that its workers
//! have, else the system's, as localtime(3) would find it.
//!
//! Files are read directly. `TimeZone::system()` would first list a folder of 600
//! files, in each worker anew.

use std::path::Path;

use glasspool_abi::control::PoolSpec;
use jiff::tz::TimeZone;

/// The system's zone.
const SYSTEM: &str = "/etc/localtime";
/// Zones by name.
const ZONES: &str = "/usr/share/zoneinfo";

/// The time zone of the pool's workers; what cannot be found is UTC. To be asked before
/// a change of the root folder and of the environment.
pub(crate) fn of(pool: &PoolSpec) -> TimeZone {
    let set = pool.env.iter().rev().find(|(name, _)| name == "TZ");
    let inherited = || (!pool.clear_env).then(|| std::env::var("TZ").ok()).flatten();
    match set.map(|(_, value)| value.clone()).or_else(inherited) {
        Some(name) => named(&name),
        None => file(Path::new(SYSTEM)),
    }
    .unwrap_or(TimeZone::UTC)
}

/// The zone that a value of `TZ` means: a file, by path or by name, or rules of POSIX
/// such as `CET-1CEST,M3.5.0,M10.5.0/3`. See tzset(3).
fn named(value: &str) -> Option<TimeZone> {
    let name = value.strip_prefix(':').unwrap_or(value);
    if name.is_empty() {
        return None;
    }
    // An absolute path stays as it is when joined.
    file(&Path::new(ZONES).join(name)).or_else(|| TimeZone::posix(name).ok())
}

fn file(path: &Path) -> Option<TimeZone> {
    let bytes = std::fs::read(path).ok()?;
    let name = path.file_name()?.to_str()?;
    TimeZone::tzif(name, &bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset_in_summer(zone: TimeZone) -> i32 {
        let july = jiff::Timestamp::from_second(1_720_000_000).expect("in range");
        zone.to_offset(july).seconds()
    }

    fn with(tz: Option<&str>, clear_env: bool) -> PoolSpec {
        PoolSpec {
            clear_env,
            env: tz.iter().map(|tz| ("TZ".to_owned(), (*tz).to_owned())).collect(),
            ..PoolSpec::default()
        }
    }

    #[test]
    fn the_pools_own_variable_decides() {
        for (tz, offset) in [
            ("CET-1CEST,M3.5.0,M10.5.0/3", 7200),
            (":JST-9", 32_400),
            ("", 0),
            ("No/Such/Zone", 0),
            ("/nowhere", 0),
        ] {
            assert_eq!(offset_in_summer(of(&with(Some(tz), false))), offset, "{tz}");
        }
    }

    #[test]
    fn files_of_zones_are_understood() {
        // Version 1 of the format (RFC 8536) with one type of time, an hour ahead.
        let mut bytes = b"TZif\0".to_vec();
        bytes.extend([0; 15]);
        for count in [0u32, 0, 0, 0, 1, 4] {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(3600i32.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(b"ABC\0");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("zone");
        std::fs::write(&path, &bytes).expect("writes");
        let tz = path.to_str().expect("UTF-8");
        assert_eq!(offset_in_summer(of(&with(Some(tz), true))), 3600);
        std::fs::write(&path, b"TZif and nothing else").expect("writes");
        assert_eq!(offset_in_summer(of(&with(Some(tz), true))), 0);
    }
}
