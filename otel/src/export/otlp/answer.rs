//! What a collector's answer means for the data that were sent: the rules of the OTLP
//! specification (`opentelemetry-proto/docs/specification.md`, "OTLP/gRPC Response" and
//! "OTLP/HTTP Response"). Pure.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use prost::Message;
use tonic::Code;
use tonic_types::StatusExt;

/// Characters of a collector's own words that are told in a log line at most.
const MAX_WORDS: usize = 300;

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Taken; the message says whether in full.
    Taken(Bytes),
    /// The same may be taken later.
    Later {
        /// Not before so long, if the collector said.
        after: Option<Duration>,
        /// Why not now.
        reason: String,
    },
    /// Never for these data.
    Refused(String),
    /// The receiver does not know this kind of data at all.
    Unsupported(String),
}

/// An answer over HTTP. `now` is the wall clock, for a `Retry-After` that is a date.
pub(crate) fn of_http(status: StatusCode, headers: &HeaderMap, body: Bytes, now: SystemTime) -> Answer {
    if status.is_success() {
        return Answer::Taken(body);
    }
    let reason = match words(&body) {
        Some(words) => format!("HTTP {status}: {words}"),
        None => format!("HTTP {status}"),
    };
    match status.as_u16() {
        // All that the specification allows to be sent again ("Retryable Response Codes").
        429 | 502 | 503 | 504 => Answer::Later {
            after: retry_after(headers, now),
            reason,
        },
        // Receivers without a pipeline for a signal do not have its path.
        404 => Answer::Unsupported(reason),
        _ => Answer::Refused(reason),
    }
}

/// An answer over gRPC that is not a success.
pub(crate) fn of_grpc(status: &tonic::Status) -> Answer {
    // What the collector sent has no cause; what failed on the way to it or back has one.
    if let Some(cause) = std::error::Error::source(status) {
        return lost_connection(cause);
    }
    let reason = format!("gRPC {:?}: {}", status.code(), short(status.message()));
    let asked = || {
        let delay = status.get_details_retry_info()?.retry_delay?;
        (!delay.is_zero()).then_some(delay)
    };
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Answer::Later {
            after: asked(),
            reason,
        },
        // Only with RetryInfo: else the data are too much for good.
        Code::ResourceExhausted if status.get_details_retry_info().is_some() => Answer::Later {
            after: asked(),
            reason,
        },
        Code::Unimplemented => Answer::Unsupported(reason),
        _ => Answer::Refused(reason),
    }
}

/// The request may or may not have arrived: "the client SHOULD retry".
pub(crate) fn lost_connection(error: &(dyn std::error::Error + 'static)) -> Answer {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let reason: Vec<_> = causes.map(ToString::to_string).collect();
    Answer::Later {
        after: None,
        reason: short(&reason.join(": ")),
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

/// What the body of a refusal says: a `google.rpc.Status`, or text.
fn words(body: &Bytes) -> Option<String> {
    let message = match tonic_types::Status::decode(body.clone()) {
        Ok(status) => status.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    Some(short(message.trim())).filter(|words| !words.is_empty())
}

pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;
    use tonic_types::ErrorDetails;

    use super::*;

    /// 1994-11-06 08:49:37, the date of RFC 9110's examples.
    const NOW: Duration = Duration::from_secs(784_111_777);

    fn http(status: u16, retry_after: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        of_http(status, &headers, Bytes::new(), UNIX_EPOCH + NOW)
    }

    fn kind(answer: &Answer) -> &'static str {
        match answer {
            Answer::Taken(_) => "taken",
            Answer::Later { .. } => "later",
            Answer::Refused(_) => "refused",
            Answer::Unsupported(_) => "unsupported",
        }
    }

    #[test]
    fn http_status_codes() {
        for (status, expected) in [
            (200, "taken"),
            (202, "taken"),
            (301, "refused"),
            (400, "refused"),
            (401, "refused"),
            (403, "refused"),
            (404, "unsupported"),
            (408, "refused"),
            (413, "refused"),
            (429, "later"),
            (500, "refused"),
            (501, "refused"),
            (502, "later"),
            (503, "later"),
            (504, "later"),
        ] {
            assert_eq!(kind(&http(status, None)), expected, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (value, expected) in [
            (None, None),
            (Some("7"), Some(Duration::from_secs(7))),
            (
                Some("Sun, 06 Nov 1994 08:49:47 GMT"),
                Some(Duration::from_secs(10)),
            ),
            (Some("Sun, 06 Nov 1994 08:49:27 GMT"), None),
            (Some("soon"), None),
            (Some("-1"), None),
        ] {
            let Answer::Later { after, .. } = http(503, value) else {
                panic!("503 is for later")
            };
            assert_eq!(after, expected, "{value:?}");
        }
    }

    #[test]
    fn grpc_codes() {
        for (code, expected) in [
            (Code::Cancelled, "later"),
            (Code::Unknown, "refused"),
            (Code::InvalidArgument, "refused"),
            (Code::DeadlineExceeded, "later"),
            (Code::NotFound, "refused"),
            (Code::AlreadyExists, "refused"),
            (Code::PermissionDenied, "refused"),
            (Code::ResourceExhausted, "refused"),
            (Code::FailedPrecondition, "refused"),
            (Code::Aborted, "later"),
            (Code::OutOfRange, "later"),
            (Code::Unimplemented, "unsupported"),
            (Code::Internal, "refused"),
            (Code::Unavailable, "later"),
            (Code::DataLoss, "later"),
            (Code::Unauthenticated, "refused"),
        ] {
            let answer = of_grpc(&tonic::Status::new(code, "so"));
            assert_eq!(kind(&answer), expected, "{code:?}");
        }
    }

    #[test]
    fn retry_info_makes_exhaustion_temporary_and_says_when() {
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
            let status = tonic::Status::with_error_details(code, "busy", details);
            let Answer::Later { after, reason } = of_grpc(&status) else {
                panic!("{code:?} with RetryInfo is for later")
            };
            assert_eq!(after, Some(Duration::from_secs(3)));
            assert!(reason.ends_with(": busy"), "{reason}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_collectors_words_but_not_all_of_them() {
        let say = |body: Vec<u8>| {
            let answer = of_http(
                StatusCode::BAD_REQUEST,
                &HeaderMap::new(),
                body.into(),
                UNIX_EPOCH,
            );
            let Answer::Refused(reason) = answer else {
                panic!("400 is refused")
            };
            reason
        };
        let status = tonic_types::Status {
            code: 3,
            message: "no such tenant".into(),
            details: Vec::new(),
        };
        assert_eq!(
            say(status.encode_to_vec()),
            "HTTP 400 Bad Request: no such tenant"
        );
        assert_eq!(say(b"<h1>no</h1>".to_vec()), "HTTP 400 Bad Request: <h1>no</h1>");
        assert_eq!(say(Vec::new()), "HTTP 400 Bad Request");
        assert!(say(vec![b'x'; 100_000]).chars().count() < MAX_WORDS + 40);
    }
}
