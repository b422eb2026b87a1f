//! What a process serves: PHP's `SG(request_info)` (main/SAPI.h), and of a FastCGI worker
//! what the web server has asked for (`params`).

use std::time::{Duration, SystemTime};

use glasspool_abi::zend::PhpBuild;

use super::params;
use crate::memory::{Batch, TargetAddr, TargetMemory};
use crate::php::redact;
use crate::php::text::{PATH_CAP, c_string};

/// Reads of a request that changes meanwhile.
const TRIES: u32 = 3;
/// `sapi_globals_struct` has 648 bytes in PHP 8.5.
const MAX_OFFSET: u32 = 4_096;

/// A request, or a script on the command line. Strings are bounded, hold no control
/// characters, and no value of a query string.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// `GET`, `POST`. `None` on the command line.
    pub method: Option<String>,
    /// Path and query as the client asked for them, where that is known, and not what the
    /// web server made of them (`/index.php`). Each value of the query is replaced by `…`,
    /// because there may be a token in it. `None` on the command line.
    pub uri: Option<String>,
    /// The script's file.
    pub script: Option<String>,
    /// When PHP first asked for the time in this request: `$_SERVER['REQUEST_TIME']`, wall
    /// clock. opcache asks at once, and else whoever reads `$_SERVER`. `None` if nobody has
    /// asked yet.
    pub began: Option<SystemTime>,
    /// Whether PHP runs nothing at the moment: then this is the *previous* request of
    /// the process, or one that has just come or gone.
    pub stale: bool,
}

/// Reads it, twice if it changes meanwhile. `None` if nothing is there or the layout is
/// blank.
pub(crate) fn read(mem: &impl TargetMemory, build: &PhpBuild, sapi_globals: TargetAddr) -> Option<Request> {
    (0..TRIES).find_map(|_| read_once(mem, build, sapi_globals))
}

fn read_once(mem: &impl TargetMemory, build: &PhpBuild, sapi_globals: TargetAddr) -> Option<Request> {
    let layout = &build.layout;
    let fields = [
        layout.sg_request_method?,
        layout.sg_request_uri?,
        layout.sg_path_translated?,
        layout.sg_query_string?,
        // The first field of all; what it is depends on the SAPI.
        0,
        layout.sg_request_time.unwrap_or(0),
    ];
    if fields.into_iter().any(|field| field > MAX_OFFSET) {
        return None;
    }
    let words = || -> Option<[u64; 7]> {
        let current = build
            .executor_globals
            .checked_add(u64::from(layout.eg_current_execute_data))?;
        let mut batch = Batch::default();
        let mut slices = [batch.want(TargetAddr(current), 8); 7];
        for (slice, field) in slices.iter_mut().zip(fields) {
            *slice = batch.want(sapi_globals.plus(u64::from(field))?, 8);
        }
        mem.read_batch(&mut batch).ok()?;
        let mut values = [0; 7];
        for (value, slice) in values.iter_mut().zip(slices) {
            *value = u64::from_le_bytes(batch.get(slice).try_into().ok()?);
        }
        Some(values)
    };
    let before = words()?;
    let [method, uri, script, query, context, time, current] = before;
    let mut batch = Batch::default();
    let strings =
        [method, uri, script, query].map(|at| (at != 0).then(|| batch.want(TargetAddr(at), PATH_CAP)));
    mem.read_batch(&mut batch).ok()?;
    let asked = params::request_uri(mem, context);
    // The innermost frame changes all the time, that there is one does not; the time is
    // written once.
    let after = words()?;
    if after[..5] != before[..5] || (after[6] == 0) != (current == 0) {
        return None;
    }
    let [method, uri, script, query] = strings.map(|slice| c_string(batch.get(slice?), PATH_CAP));
    let uri = uri.map(|uri| match query {
        // Some SAPIs have the query in the URI already.
        Some(query) if !uri.contains('?') && !query.is_empty() => format!("{uri}?{query}"),
        _ => uri,
    });
    let request = Request {
        method,
        uri: asked.or(uri).map(|uri| redact::url(&uri)),
        script,
        began: layout.sg_request_time.and(began(f64::from_bits(time))),
        stale: current == 0,
    };
    let nothing = request.method.is_none() && request.uri.is_none() && request.script.is_none();
    (!nothing).then_some(request)
}

/// A time that a request may have begun at: later than PHP is old, and not to come.
fn began(seconds: f64) -> Option<SystemTime> {
    const OLDEST: f64 = 1e9;
    let plausible = seconds.is_finite() && seconds >= OLDEST;
    let since_1970 = Duration::try_from_secs_f64(seconds).ok().filter(|_| plausible)?;
    let began = SystemTime::UNIX_EPOCH.checked_add(since_1970)?;
    (began <= SystemTime::now()).then_some(began)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Image;
    use crate::php::testing::{Fake, GLOBALS, build};

    const SAPI: u64 = 0x54_0000_0000;

    fn with_strings(strings: [(u64, &[u8]); 4]) -> Image {
        let mut image = Fake::new().finish();
        image.map(TargetAddr(SAPI), vec![0; 600]);
        let mut at = 0x53_0000_0000_u64;
        for (field, text) in strings {
            image.map(TargetAddr(at), text);
            assert!(image.write(TargetAddr(SAPI + field), &at.to_le_bytes()));
            at += 4_096;
        }
        image
    }

    #[test]
    fn a_request_tells_no_secrets() {
        let mut image = with_strings([
            (8, b"GET\0"),
            (48, b"/report\0"),
            (40, b"/srv/report.php\0"),
            (16, b"token=hunter2&page=3\0"),
        ]);
        let request = read(&image, &build(), TargetAddr(SAPI)).unwrap();
        assert_eq!(
            request,
            Request {
                method: Some("GET".to_owned()),
                uri: Some("/report?token=…&page=…".to_owned()),
                script: Some("/srv/report.php".to_owned()),
                began: None,
                stale: true,
            }
        );
        assert!(image.write(TargetAddr(GLOBALS + 488), &8_u64.to_le_bytes()));
        assert!(!read(&image, &build(), TargetAddr(SAPI)).unwrap().stale);
    }

    #[test]
    fn a_time_is_believed_if_a_request_may_have_begun_then() {
        assert_eq!(began(0.0), None);
        for seconds in [f64::NAN, f64::INFINITY, -1.0, 5.0, 1e300] {
            assert_eq!(began(seconds), None, "{seconds}");
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(began(now.as_secs_f64() + 60.0), None, "it is to come");
        let mut image = with_strings([(8, b"GET\0"), (48, b"/\0"), (40, b"/x.php\0"), (16, b"\0")]);
        assert!(image.write(TargetAddr(SAPI + 440), &1_700_000_000.5_f64.to_le_bytes()));
        let request = read(&image, &build(), TargetAddr(SAPI)).unwrap();
        let expected = cfg!(target_arch = "x86_64")
            .then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500));
        assert_eq!(request.began, expected);
    }

    #[test]
    fn a_string_without_an_end_or_nothing_at_all_is_none() {
        let image = with_strings([(8, b"GE"), (48, b""), (40, b"\x1b[31m\0"), (16, b"")]);
        let request = read(&image, &build(), TargetAddr(SAPI)).unwrap();
        assert_eq!(request.method, None);
        assert_eq!(request.script.as_deref(), Some("\u{fffd}[31m"));
        let mut image = Fake::new().finish();
        assert_eq!(read(&image, &build(), TargetAddr(SAPI)), None);
        image.map(TargetAddr(SAPI), vec![0; 600]);
        assert_eq!(read(&image, &build(), TargetAddr(SAPI)), None);
        let mut blank = build();
        blank.layout.sg_request_uri = None;
        assert_eq!(read(&image, &blank, TargetAddr(SAPI)), None);
    }
}
