//! What a process serves: PHP's `SG(request_info)` (main/SAPI.h).

use glasspool_abi::zend::PhpBuild;

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
    /// Path and query; each value of the query is replaced by `…`, because there may
    /// be a token in it. `None` on the command line.
    pub uri: Option<String>,
    /// The script's file.
    pub script: Option<String>,
    /// Whether PHP runs nothing at the moment: then this is the *previous* request of
    /// the process, or one that has just come or gone.
    pub stale: bool,
}

/// Reads it, twice if it changes meanwhile. `None` if nothing is there or the layout is
/// blank.
pub(super) fn read(mem: &impl TargetMemory, build: &PhpBuild, sapi_globals: TargetAddr) -> Option<Request> {
    (0..TRIES).find_map(|_| read_once(mem, build, sapi_globals))
}

fn read_once(mem: &impl TargetMemory, build: &PhpBuild, sapi_globals: TargetAddr) -> Option<Request> {
    let layout = &build.layout;
    let fields = [
        layout.sg_request_method?,
        layout.sg_request_uri?,
        layout.sg_path_translated?,
        layout.sg_query_string?,
    ];
    if fields.into_iter().any(|field| field > MAX_OFFSET) {
        return None;
    }
    let pointers = || -> Option<[u64; 5]> {
        let current = build
            .executor_globals
            .checked_add(u64::from(layout.eg_current_execute_data))?;
        let mut batch = Batch::default();
        let mut slices = [batch.want(TargetAddr(current), 8); 5];
        for (slice, field) in slices.iter_mut().zip(fields) {
            *slice = batch.want(sapi_globals.plus(u64::from(field))?, 8);
        }
        mem.read_batch(&mut batch).ok()?;
        let mut values = [0; 5];
        for (value, slice) in values.iter_mut().zip(slices) {
            *value = u64::from_le_bytes(batch.get(slice).try_into().ok()?);
        }
        Some(values)
    };
    let before = pointers()?;
    let [method, uri, script, query, current] = before;
    let mut batch = Batch::default();
    let strings =
        [method, uri, script, query].map(|at| (at != 0).then(|| batch.want(TargetAddr(at), PATH_CAP)));
    mem.read_batch(&mut batch).ok()?;
    // The innermost frame changes all the time, that there is one does not.
    let after = pointers()?;
    if after[..4] != before[..4] || (after[4] == 0) != (current == 0) {
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
        uri: uri.map(|uri| redact::url(&uri)),
        script,
        stale: current == 0,
    };
    let nothing = request.method.is_none() && request.uri.is_none() && request.script.is_none();
    (!nothing).then_some(request)
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
                stale: true,
            }
        );
        assert!(image.write(TargetAddr(GLOBALS + 488), &8_u64.to_le_bytes()));
        assert!(!read(&image, &build(), TargetAddr(SAPI)).unwrap().stale);
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
