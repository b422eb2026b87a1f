//! What kind of request a duration is of: few kinds, whatever workers write.

use glasspool_otel::metrics::KeyValue;
use glasspool_otel::metrics::instruments::attribute;
use glasspool_otel::semconv::name;
use nix::sys::signal::Signal;

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Series {
    /// Its number in [`Methods`].
    method: u8,
    https: bool,
    /// 0 for none, or none that HTTP knows.
    status: u16,
    failure: Failure,
}

/// Why a request counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Failure {
    None,
    /// Its status says so.
    Status,
    /// PHP ended it with a fatal error, but had sent another status by then.
    Fatal,
    /// Its worker was ended by that signal.
    Signal(i32),
    /// Its worker exited.
    Exit,
    /// Not one kind: all that are too many.
    Overflow,
}

impl Series {
    /// Whatever does not fit into the table.
    pub(super) const OVERFLOW: Series = Series {
        method: 0,
        https: false,
        status: 0,
        failure: Failure::Overflow,
    };

    pub(super) fn new(method: u8, scheme: Option<&[u8]>, status: u32, failure: Failure) -> Series {
        Series {
            method,
            https: scheme == Some(b"https"),
            status: u16::try_from(status)
                .ok()
                .filter(|status| (100..600).contains(status))
                .unwrap_or(0),
            failure,
        }
    }

    /// The attributes of a request of this kind that is under way, `pool` first.
    pub(super) fn begun(self, methods: &Methods, pool: &str) -> Vec<KeyValue> {
        let scheme = if self.https { "https" } else { "http" };
        vec![
            KeyValue::new(name::PHP_POOL, pool.to_owned()),
            KeyValue::new(name::HTTP_REQUEST_METHOD, methods.name(self.method).to_owned()),
            KeyValue::new(name::URL_SCHEME, scheme),
        ]
    }

    /// The attributes of one that has ended.
    pub(super) fn ended(self, methods: &Methods, pool: &str) -> Vec<KeyValue> {
        if self.failure == Failure::Overflow {
            return vec![
                KeyValue::new(name::PHP_POOL, pool.to_owned()),
                KeyValue::new(attribute::OVERFLOW, true),
            ];
        }
        let mut attributes = self.begun(methods, pool);
        if self.status != 0 {
            let status = i64::from(self.status);
            attributes.push(KeyValue::new(name::HTTP_RESPONSE_STATUS_CODE, status));
        }
        let error = match self.failure {
            Failure::None | Failure::Overflow => return attributes,
            Failure::Status if self.status == 0 => "_OTHER".to_owned(),
            Failure::Status => self.status.to_string(),
            Failure::Fatal => "fatal_error".to_owned(),
            Failure::Signal(signal) => signal_name(signal),
            Failure::Exit => "worker_exit".to_owned(),
        };
        attributes.push(KeyValue::new(name::ERROR_TYPE, error));
        attributes
    }
}

/// `SIGSEGV`, or `signal 34` for one without a name.
pub(super) fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |known| known.as_str().to_owned())
}

/// The methods that become attributes, by number; one more number for all others.
#[derive(Debug)]
pub(super) struct Methods(Vec<String>);

impl Methods {
    pub(super) fn new(known: &[String]) -> Methods {
        Methods(known.iter().take(usize::from(u8::MAX)).cloned().collect())
    }

    pub(super) fn number(&self, method: Option<&[u8]>) -> u8 {
        let known = method.and_then(|method| self.0.iter().position(|known| known.as_bytes() == method));
        u8::try_from(known.unwrap_or(self.0.len())).unwrap_or(u8::MAX)
    }

    fn name(&self, number: u8) -> &str {
        self.0.get(usize::from(number)).map_or("_OTHER", String::as_str)
    }
}
