//! A record of the kernel programs that is any bytes: in particular any names that a worker
//! has had in its memory. What comes out is bounded by the record's length, fit to be shown,
//! and made without a panic.

#![no_main]

use glasspool_waits::record::Kind;
use glasspool_waits::{Cause, Frame, Record, Wait};
use libfuzzer_sys::fuzz_target;

/// A name of 120 bytes, each of which may become a replacement character; and what marks it
/// as cut.
const LONGEST: usize = 120 * 3 + 3;

fn check(frames: &[Frame], bytes: usize) {
    assert!(frames.len() <= 32 && frames.len() * 256 <= bytes);
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
    match record {
        Record::OnCpu(look) => check(&look.frames, data.len()),
        Record::Wait(wait) => {
            check(&wait.frames, data.len());
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
