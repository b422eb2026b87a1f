//! What a record means, given the phase of the request: a pure function over phase and header.
//!
//! A record type that is added without a decision does not compile.

use crate::{Header, RecordType};

/// Where the current request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request. A BEGIN_REQUEST starts one.
    Idle,
    /// PARAMS records come, until an empty one.
    Params,
    /// STDIN records come, until an empty one.
    Stdin,
    /// All has been read; only an abort can come. The caller leaves with `next_request`.
    Complete,
    /// Aborted; what comes for it is skipped. The caller leaves with `next_request`.
    Aborted,
}

/// What a record means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing; its content is passed over.
    Skip,
    /// A request begins.
    Begin,
    /// Another request begins while one is active: CANT_MPX_CONN.
    RefuseSecond,
    /// Content of the parameters.
    Params,
    /// The parameters are complete.
    ParamsEnd,
    /// Content of the body.
    Stdin,
    /// The body is complete.
    StdinEnd,
    /// Parameters and body are complete at once.
    ParamsAndStdinEnd,
    /// The web server gives up the request.
    Abort,
    /// A question to be answered with GET_VALUES_RESULT.
    GetValues,
    /// A management record to be answered with UNKNOWN_TYPE.
    UnknownType,
    /// An error, with the place as in [`crate::ProtocolError::OutOfPlace`].
    OutOfPlace(RecordType, &'static str),
}

/// What a record means in this phase; `active` is the id of the current request, 0 in [`Phase::Idle`].
pub(super) fn decide(phase: Phase, active: u16, header: &Header) -> Verdict {
    if header.request_id == 0 {
        return decide_management(header);
    }
    let Some(record) = header.record_type() else {
        return Verdict::Skip;
    };
    if header.request_id != active {
        return match (record, phase) {
            (RecordType::BeginRequest, Phase::Idle) => Verdict::Begin,
            (RecordType::BeginRequest, _) => Verdict::RefuseSecond,
            // Section 3.3: a request id that is not active is ignored. That covers what a web server still
            // sends for a request that was answered before its body was read.
            _ => Verdict::Skip,
        };
    }
    let empty = header.content_length == 0;
    match (phase, record) {
        (Phase::Idle | Phase::Aborted, RecordType::Params | RecordType::Stdin | RecordType::AbortRequest) => {
            Verdict::Skip
        }
        (_, RecordType::Data) => Verdict::Skip,
        (_, RecordType::AbortRequest) => Verdict::Abort,
        (_, RecordType::BeginRequest) => Verdict::OutOfPlace(record, "(this request has begun already)"),

        (Phase::Params, RecordType::Params) if empty => Verdict::ParamsEnd,
        (Phase::Params, RecordType::Params) => Verdict::Params,
        // Nothing can follow the end of the body, so the parameters have ended as well. php-fpm
        // serves such a request too.
        (Phase::Params, RecordType::Stdin) if empty => Verdict::ParamsAndStdinEnd,
        (Phase::Params, RecordType::Stdin) => Verdict::OutOfPlace(record, "before the end of PARAMS"),

        (Phase::Stdin, RecordType::Stdin) if empty => Verdict::StdinEnd,
        (Phase::Stdin, RecordType::Stdin) => Verdict::Stdin,
        (Phase::Complete, RecordType::Stdin) if empty => Verdict::Skip,
        (Phase::Complete, RecordType::Stdin) => Verdict::OutOfPlace(record, "after the end of STDIN"),
        (Phase::Stdin | Phase::Complete, RecordType::Params) => {
            Verdict::OutOfPlace(record, "after the end of PARAMS")
        }

        (
            _,
            RecordType::EndRequest
            | RecordType::Stdout
            | RecordType::Stderr
            | RecordType::GetValues
            | RecordType::GetValuesResult
            | RecordType::UnknownType,
        ) => Verdict::OutOfPlace(record, "(a web server does not send it within a request)"),
    }
}

/// Request id 0 is for management records, which may come at any time (section 3.3).
fn decide_management(header: &Header) -> Verdict {
    match header.record_type() {
        Some(RecordType::GetValues) => Verdict::GetValues,
        // php-fpm skips empty STDIN records in front of a request without a look at their id.
        Some(RecordType::Stdin) if header.content_length == 0 => Verdict::Skip,
        Some(record) => Verdict::OutOfPlace(record, "(0 is for management records that a web server sends)"),
        None => Verdict::UnknownType,
    }
}
