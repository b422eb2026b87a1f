//! A record of the kernel programs that is any bytes: in particular any names that a worker
//! has had in its memory. What comes out is bounded by the record's length, fit to be shown,
//! and made without a panic.

#![no_main]

use glasspool_waits::record::Kind;
use glasspool_waits::{Cause, Frame, Record, Wait};
use libfuzzer_sys::fuzz_target;

/// Of `struct gp_wait` (waits/bpf/types.h): its length without frames, where its flags and its
/// kind are, and what they say.
const HEAD: usize = 216;
const FLAGS_AT: usize = 79;
const CUT: u8 = 1;
const FAULT: u8 = 2;
const IOWAIT: u8 = 4;
const NO_CALL: u8 = 16;
const OWN: u8 = 32;
const KIND_AT: usize = 208;
const ON_CPU: u32 = 1;

/// A name of 120 bytes, each of which may become a replacement character; and what marks it
/// as cut.
const LONGEST: usize = 120 * 3 + 3;

fn check(frames: &[Frame], bytes: usize) {
    assert!(frames.len() <= 32 && HEAD + frames.len() * 256 <= bytes);
    for frame in frames {
        let texts = [Some(&frame.function), frame.class.as_ref(), frame.file.as_ref()];
        for text in texts.into_iter().flatten() {
            assert!(text.len() <= LONGEST, "{text:?}");
        }
        assert!(!frame.to_string().chars().any(char::is_control), "{frame:?}");
        assert!(!frame.internal || frame.line.is_none());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(record) = Record::parse(data) else {
        assert!(Wait::parse(data).is_none());
        return;
    };
    let has = |flag: u8| data[FLAGS_AT] & flag != 0;
    let kind = data[KIND_AT..].first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let kind = kind.expect("a record is as long as its head");
    match record {
        Record::OnCpu(look) => {
            check(&look.frames, data.len());
            assert!(kind == ON_CPU && (look.cut, look.fault) == (has(CUT), has(FAULT)));
        }
        Record::Wait(wait) => {
            check(&wait.frames, data.len());
            assert!(kind != ON_CPU && (wait.cut, wait.fault) == (has(CUT), has(FAULT)));
            assert_eq!((wait.io_wait, wait.own_connection), (has(IOWAIT), has(OWN)));
            assert!(wait.call.is_none() || !has(NO_CALL));
            assert!(wait.futex.is_none() || wait.descriptor.is_none());
            assert!(Cause::ALL.contains(&wait.cause));
            assert_ne!(wait.blocked, Some(std::time::Duration::ZERO));
            let (builtin, line) = wait.place();
            assert!(builtin.is_none_or(|frame| frame.internal));
            assert!(line.is_none_or(|frame| frame.line.is_some()));
            if let Some(peer) = wait.peer() {
                let text = peer.to_string();
                assert!(
                    text.len() <= LONGEST + 8 && !text.chars().any(char::is_control),
                    "{text:?}"
                );
            }
            if let Some(Kind::File { name, .. }) = wait.descriptor.map(|descriptor| descriptor.kind) {
                assert!(
                    name.len() <= LONGEST && !name.chars().any(char::is_control),
                    "{name:?}"
                );
            }
        }
    }
});
