//! Names and rules of the OpenTelemetry semantic conventions 1.44 (`docs/http/http-spans.md`,
//! `docs/registry/attributes/{code,exception,process}.md`), and our own names, which all
//! start with `php.`.
//!
//! Names are spelled out here instead of taken from the conventions' crate: half of them are
//! ours, and the other half is stable by promise.

use glasspool_abi::trace::sampling::Route;

/// The attribute and event names we emit.
#[expect(
    missing_docs,
    reason = "a name says what it is; the conventions describe the standard ones"
)]
pub mod name {
    pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
    pub const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
    pub const HTTP_REQUEST_BODY_SIZE: &str = "http.request.body.size";
    pub const HTTP_RESPONSE_BODY_SIZE: &str = "http.response.body.size";
    pub const HTTP_ROUTE: &str = "http.route";
    pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
    pub const URL_PATH: &str = "url.path";
    pub const URL_QUERY: &str = "url.query";
    pub const URL_SCHEME: &str = "url.scheme";
    pub const SERVER_ADDRESS: &str = "server.address";
    pub const SERVER_PORT: &str = "server.port";
    pub const CLIENT_ADDRESS: &str = "client.address";
    pub const NETWORK_PROTOCOL_NAME: &str = "network.protocol.name";
    pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
    pub const USER_AGENT_ORIGINAL: &str = "user_agent.original";
    pub const ERROR_TYPE: &str = "error.type";
    pub const PROCESS_PID: &str = "process.pid";
    pub const PROCESS_EXIT_CODE: &str = "process.exit.code";
    pub const CODE_FUNCTION_NAME: &str = "code.function.name";
    pub const CODE_FILE_PATH: &str = "code.file.path";
    pub const CODE_LINE_NUMBER: &str = "code.line.number";
    pub const CODE_STACKTRACE: &str = "code.stacktrace";
    pub const FILE_NAME: &str = "file.name";
    pub const FILE_PATH: &str = "file.path";
    /// State of a TCP connection (system metrics of the conventions, in development).
    pub const NETWORK_CONNECTION_STATE: &str = "network.connection.state";
    pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
    pub const NETWORK_PEER_PORT: &str = "network.peer.port";
    pub const NETWORK_TRANSPORT: &str = "network.transport";
    pub const EXCEPTION_TYPE: &str = "exception.type";
    pub const EXCEPTION_MESSAGE: &str = "exception.message";
    pub const EXCEPTION_STACKTRACE: &str = "exception.stacktrace";

    /// Pool that served the request.
    pub const PHP_POOL: &str = "php.pool";
    /// Number of the worker in its pool.
    pub const PHP_WORKER_ID: &str = "php.worker.id";
    /// Name of the signal that ended the worker in mid-request.
    pub const PHP_WORKER_EXIT_SIGNAL: &str = "php.worker.exit_signal";
    /// Script file.
    pub const PHP_SCRIPT: &str = "php.script";
    /// CPU time in user mode, seconds.
    pub const PHP_CPU_USER_TIME: &str = "php.cpu.user_time";
    /// CPU time in the kernel, seconds.
    pub const PHP_CPU_SYSTEM_TIME: &str = "php.cpu.system_time";
    /// Looks of the CPUs' clocks since it was past its limit.
    pub const PHP_CPU_SAMPLES: &str = "php.cpu.samples";
    /// Where they found it most often, with their shares.
    pub const PHP_CPU_TOP_FRAMES: &str = "php.cpu.top_frames";
    /// Time on a CPU, seconds.
    pub const PHP_TIME_ON_CPU: &str = "php.time.on_cpu";
    /// Time waiting for a CPU, seconds.
    pub const PHP_TIME_RUNQUEUE: &str = "php.time.runqueue";
    /// Time blocked, seconds.
    pub const PHP_TIME_BLOCKED: &str = "php.time.blocked";
    /// Time blocked for this cause, seconds. All of them sum up to the time blocked.
    pub const PHP_BLOCKED_NETWORK: &str = "php.blocked.network";
    /// See [`PHP_BLOCKED_NETWORK`].
    pub const PHP_BLOCKED_DISK: &str = "php.blocked.disk";
    /// See [`PHP_BLOCKED_NETWORK`].
    pub const PHP_BLOCKED_LOCK: &str = "php.blocked.lock";
    /// See [`PHP_BLOCKED_NETWORK`].
    pub const PHP_BLOCKED_SLEEP: &str = "php.blocked.sleep";
    /// See [`PHP_BLOCKED_NETWORK`].
    pub const PHP_BLOCKED_PIPE: &str = "php.blocked.pipe";
    /// See [`PHP_BLOCKED_NETWORK`].
    pub const PHP_BLOCKED_OTHER: &str = "php.blocked.other";
    /// System calls of the request, where they are counted.
    pub const PHP_SYSTEM_CALLS_COUNT: &str = "php.system_calls.count";
    /// Time in them, waits included, seconds.
    pub const PHP_SYSTEM_CALLS_TIME: &str = "php.system_calls.time";
    /// Bytes sent to sockets.
    pub const PHP_NETWORK_SENT: &str = "php.network.sent";
    /// Bytes received from sockets.
    pub const PHP_NETWORK_RECEIVED: &str = "php.network.received";
    /// Times that it blocked, however shortly.
    pub const PHP_WAITS_COUNT: &str = "php.waits.count";
    /// The places that waited most, the first the most.
    pub const PHP_WAITS_TOP: &str = "php.waits.top";
    /// Waits that were long enough to be told, and of which nothing is known.
    pub const PHP_WAITS_LOST: &str = "php.waits.lost";
    /// Waits that are no spans of their own because there are too many.
    pub const PHP_WAITS_SPANS_DROPPED: &str = "php.waits.spans_dropped";
    /// PHP's peak memory, bytes.
    pub const PHP_MEMORY_PEAK: &str = "php.memory.peak";
    /// Busy time of the worker after the response was complete, seconds.
    pub const PHP_POST_RESPONSE_DURATION: &str = "php.request.post_response_duration";
    /// How long the request had waited for a worker, seconds.
    pub const PHP_QUEUE_TIME: &str = "php.request.queue_time";
    /// Number of this request in its worker, from 1.
    pub const PHP_WORKER_REQUESTS: &str = "php.worker.requests";
    /// Age of the worker when the request began, seconds.
    pub const PHP_WORKER_AGE: &str = "php.worker.age";
    /// Why a request is here that sampling did not take.
    pub const PHP_SAMPLING_KEPT: &str = "php.sampling.kept";
    /// Span: what a request did after its response.
    pub const SPAN_POST_RESPONSE: &str = "php.request.post_response";
    /// The client went away before the response was complete.
    pub const PHP_REQUEST_ABORTED: &str = "php.request.aborted";
    /// Number of samples taken because the request was slow, or before it was killed.
    pub const PHP_SLOW_SAMPLES: &str = "php.request.slow_samples";
    /// Innermost function and line of these samples, each with its share of them.
    pub const PHP_SLOW_TOP_FRAMES: &str = "php.request.slow_top_frames";
    /// What was waited for in these samples, in kinds, each with its share of them.
    pub const PHP_SLOW_WAITS: &str = "php.request.slow_waits";
    /// Samples that were due and not taken.
    pub const PHP_SLOW_SKIPPED: &str = "php.request.slow_skipped";
    /// Age of the request when the sample was taken, seconds.
    pub const PHP_REQUEST_ELAPSED: &str = "php.request.elapsed";
    /// How the sample was taken.
    pub const PHP_SAMPLE_HOW: &str = "php.sample.how";
    /// What taking the sample cost the worker, seconds.
    pub const PHP_SAMPLE_COST: &str = "php.sample.cost";
    /// Whether `code.line.number` is exact or the last known one.
    pub const PHP_LINE_EXACT: &str = "php.line.exact";
    /// What the sample does not show, and what would help.
    pub const PHP_SAMPLE_MISSING: &str = "php.sample.missing";
    /// What the worker waited for: system call, descriptor, and what that leads to.
    // The names that belong to it have no dot: an attribute may not be the beginning of
    // another's name (naming.md of the conventions).
    pub const PHP_WAIT: &str = "php.wait";
    /// The kind of wait: of a look `network`, `pipe`, `file`, `lock`, `sleep`, `child`,
    /// `memory`, `other`; of the kernel's account one of [`crate::times::CAUSE_NAMES`].
    pub const PHP_WAIT_CLASS: &str = "php.wait_class";
    /// How long the worker had waited when the sample was taken, seconds.
    pub const PHP_WAIT_ELAPSED: &str = "php.wait_elapsed";
    /// The system call that it waited in.
    pub const PHP_WAIT_SYSCALL: &str = "php.wait_syscall";
    /// Bytes of the TCP connection that it waited for: received, and not read.
    pub const PHP_WAIT_RECEIVE_QUEUE: &str = "php.wait_receive_queue";
    /// Written, and not acknowledged.
    pub const PHP_WAIT_SEND_QUEUE: &str = "php.wait_send_queue";
    /// The C functions of PHP and its extensions, one per line, innermost first.
    pub const PHP_NATIVE_STACKTRACE: &str = "php.native_stacktrace";
    /// Why the supervisor killed the worker.
    pub const PHP_TERMINATION_REASON: &str = "php.termination.reason";

    /// Workers of a full pool that were busy.
    pub const PHP_SATURATION_BUSY: &str = "php.saturation.busy";
    /// All workers of that pool.
    pub const PHP_SATURATION_WORKERS: &str = "php.saturation.workers";
    /// What they did, one text for those that did the same, the largest group first.
    pub const PHP_SATURATION_GROUPS: &str = "php.saturation.groups";

    /// Span: a request was still running past its slow limit.
    pub const SPAN_STILL_RUNNING: &str = "php.request.still_running";
    /// Which stream a line was written to: `stdout` or `stderr`.
    pub const LOG_IOSTREAM: &str = "log.iostream";
    /// Bytes that are missing at the end of a line.
    pub const PHP_LOG_CUT_BYTES: &str = "php.log.cut_bytes";
    /// Lines of the worker before this one that are missing.
    pub const PHP_LOG_DROPPED_LINES: &str = "php.log.dropped_lines";

    /// Event: all workers of a pool were busy, and there may be no more of them.
    pub const EVENT_SATURATED: &str = "php.pool.saturated";
    /// Event: a request was still running past its slow limit.
    pub const EVENT_SLOW: &str = "php.request.slow";
    /// Event: what a request did when its worker was about to be killed.
    pub const EVENT_TERMINATED: &str = "php.request.terminated";
    /// Event: what a request did when its worker crashed.
    pub const EVENT_CRASHED: &str = "php.request.crashed";
    /// Event: PHP ended the request with a fatal error.
    pub const EVENT_EXCEPTION: &str = "exception";
}

/// What replaces the value of a redacted query parameter.
pub const REDACTED: &str = "REDACTED";

/// The parts of the conventions that an operator may replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conventions {
    /// Methods that may become span names; others are `_OTHER`.
    pub known_methods: Vec<String>,
    /// Query parameters whose value is replaced by [`REDACTED`]; case matters.
    pub redacted_query_keys: Vec<String>,
    /// What requests are called; the first that matches counts.
    pub routes: Vec<Route>,
}

impl Default for Conventions {
    /// RFC 9110, PATCH (RFC 5789) and QUERY; the keys that `http-spans.md` lists.
    fn default() -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Conventions {
            known_methods: owned(&[
                "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE",
            ]),
            redacted_query_keys: owned(&[
                "AWSAccessKeyId",
                "Signature",
                "sig",
                "X-Amz-Credential",
                "X-Amz-Security-Token",
                "X-Amz-Signature",
                "X-Goog-Signature",
            ]),
            routes: Vec::new(),
        }
    }
}

impl Conventions {
    /// Whether a method is known. Methods are case-sensitive (RFC 9110 section 9.1).
    pub fn knows_method(&self, method: &str) -> bool {
        self.known_methods.iter().any(|known| known == method)
    }

    /// What a rule calls such a request.
    pub fn route(&self, method: &[u8], path: &[u8]) -> Option<&str> {
        let mut routes = self.routes.iter();
        let found = routes.find(|route| route.which.matches(method, path))?;
        Some(&found.route)
    }

    /// The query with the values of secret parameters replaced; all else as it was.
    pub fn redact_query(&self, query: &str) -> String {
        let mut redacted = String::with_capacity(query.len());
        for (index, parameter) in query.split('&').enumerate() {
            if index > 0 {
                redacted.push('&');
            }
            match parameter.split_once('=') {
                Some((key, _)) if self.redacted_query_keys.iter().any(|secret| secret == key) => {
                    redacted.extend([key, "=", REDACTED]);
                }
                _ => redacted.push_str(parameter),
            }
        }
        redacted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn signatures_are_replaced_and_keys_stay() {
        let conventions = Conventions::default();
        assert_eq!(
            conventions.redact_query("a=1&sig=abc&b&Signature="),
            "a=1&sig=REDACTED&b&Signature=REDACTED"
        );
        assert_eq!(conventions.redact_query("SIG=abc&sig"), "SIG=abc&sig");
        assert_eq!(
            conventions.redact_query("sig=a=b&sig=c"),
            "sig=REDACTED&sig=REDACTED"
        );
    }

    proptest! {
        #[test]
        fn a_query_without_secrets_is_untouched(query in "[a-z=&%0-9]{0,50}") {
            prop_assume!(!query.split('&').any(|p| p.starts_with("sig=")));
            prop_assert_eq!(Conventions::default().redact_query(&query), query);
        }

        #[test]
        fn no_secret_value_survives(before in "[a-z=&]{0,20}", secret in "[0-9]{6,12}") {
            let query = format!("{before}&X-Amz-Signature={secret}&z=1");
            prop_assert!(!Conventions::default().redact_query(&query).contains(&secret));
        }
    }
}
