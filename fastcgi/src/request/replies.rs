//! What a web server is answered while its request is still being read.

use crate::pairs::{pairs, push_pair};
use crate::record::push_record;
use crate::{EndRequest, Limits, ProtocolError, ProtocolStatus, RecordType};

/// Ends a request that was not begun.
pub(super) fn refuse(request_id: u16, protocol_status: ProtocolStatus, replies: &mut Vec<u8>) {
    EndRequest {
        request_id,
        app_status: 0,
        protocol_status,
    }
    .encode(replies);
}

/// Appends the answer to GET_VALUES (section 4.1): those of the asked variables that we know, each once, in
/// the order of the specification.
pub(super) fn push_values(asked: &[u8], limits: &Limits, replies: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let known: [(&[u8], u32); 3] = [
        (b"FCGI_MAX_CONNS", limits.max_conns),
        (b"FCGI_MAX_REQS", limits.max_reqs),
        (b"FCGI_MPXS_CONNS", 0),
    ];
    let mut wanted = [false; 3];
    for pair in pairs(RecordType::GetValues, asked) {
        let (asked, _no_value) = pair?;
        for (wanted, (name, _)) in wanted.iter_mut().zip(known) {
            *wanted |= asked == name;
        }
    }
    // At most three pairs: this rare answer may allocate.
    let mut content = Vec::new();
    for ((name, value), _) in known.iter().zip(wanted).filter(|(_, wanted)| *wanted) {
        push_pair(&mut content, name, value.to_string().as_bytes());
    }
    push_record(replies, RecordType::GetValuesResult, 0, &content);
    Ok(())
}

/// Appends the answer to a management record of unknown type (section 4.2).
pub(super) fn push_unknown_type(type_byte: u8, replies: &mut Vec<u8>) {
    push_record(
        replies,
        RecordType::UnknownType,
        0,
        &[type_byte, 0, 0, 0, 0, 0, 0, 0],
    );
}
