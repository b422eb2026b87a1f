//! Bytes of a hostile peer, in reads of any size, into both FastCGI readers.
//!
//! Byte 0 of the input seeds the sizes of the reads, byte 1 chooses when a request is given up; the rest is
//! the stream. Checked: no panic, progress, every range inside the input, memory within the limits.

#![no_main]

use glasspool_fastcgi::client::{self, ResponseReader};
use glasspool_fastcgi::{Event, Limits, RequestReader};
use libfuzzer_sys::fuzz_target;

const PARAMS_BYTES: usize = 4096;
const PARAMS_COUNT: usize = 64;

fuzz_target!(|data: &[u8]| {
    let [seed, leave, stream @ ..] = data else { return };
    serve(stream, Reads::new(stream, *seed), *leave);
    call(Reads::new(stream, *seed));
});

fn serve(stream: &[u8], mut reads: Reads<'_>, leave: u8) {
    let limits = Limits {
        params_bytes: PARAMS_BYTES,
        params_count: PARAMS_COUNT,
        ..Limits::default()
    };
    let mut reader = RequestReader::new(limits);
    let mut replies = Vec::new();
    let mut body_bytes = 0;
    let mut events = 0u32;
    loop {
        let input = reads.unconsumed();
        let Ok(fed) = reader.feed(input, &mut replies) else {
            assert!(reader.feed(b"", &mut replies).is_err(), "an error stays");
            return;
        };
        reads.consume(fed.consumed);
        assert!(reader.params().bytes() <= PARAMS_BYTES);
        assert!(reader.params().len() <= PARAMS_COUNT);
        // Arena and carry, doubled by growth; 32 bytes per parameter, likewise; one joined record.
        assert!(reader.capacity_bytes() <= 4 * PARAMS_BYTES + 2 * 32 * PARAMS_COUNT + 2 * 65535 + 64);
        assert!(replies.len() <= 2 * reads.consumed, "replies must not amplify");
        let Some(event) = fed.event else {
            assert_eq!(fed.consumed, input.len());
            if !reads.read() {
                break;
            }
            continue;
        };
        events += 1;
        match event {
            Event::Request => {
                for (name, value) in reader.params().iter_with_nul() {
                    assert!(name.ends_with(b"\0") && value.ends_with(b"\0"));
                    assert_eq!(
                        reader.params().value_with_nul(&name[..name.len() - 1]),
                        Some(value)
                    );
                }
            }
            Event::Stdin(range) => {
                assert!(!range.is_empty() && range.end <= fed.consumed);
                body_bytes += range.len();
            }
            Event::StdinEnd | Event::Aborted => reader.next_request(),
        }
        // A server may answer before it has read everything.
        if events % 8 == u32::from(leave) {
            reader.next_request();
        }
    }
    assert!(body_bytes <= stream.len());
    assert!(events as usize <= stream.len(), "an event comes from bytes");
    check_replies(&replies);
}

/// Whatever was asked, the answers are good FastCGI.
fn check_replies(replies: &[u8]) {
    let mut reader = ResponseReader::new();
    let mut rest = replies;
    loop {
        let fed = reader.feed(rest).expect("our replies are well-formed");
        rest = &rest[fed.consumed..];
        match fed.event {
            None => return assert!(rest.is_empty()),
            Some(client::Event::Stdout(_) | client::Event::Stderr(_)) => panic!("a reply is not output"),
            Some(client::Event::End(_) | client::Event::Values(_) | client::Event::UnknownType(_)) => {}
        }
    }
}

fn call(mut reads: Reads<'_>) {
    let mut reader = ResponseReader::new();
    loop {
        let input = reads.unconsumed();
        let Ok(fed) = reader.feed(input) else {
            assert!(reader.feed(b"").is_err(), "an error stays");
            return;
        };
        reads.consume(fed.consumed);
        assert!(reader.capacity_bytes() <= 2 * 65535);
        match fed.event {
            None => {
                assert_eq!(fed.consumed, input.len());
                if !reads.read() {
                    return;
                }
            }
            Some(client::Event::Stdout(range) | client::Event::Stderr(range)) => {
                assert!(!range.is_empty() && range.end <= fed.consumed);
            }
            Some(_) => assert!(fed.consumed > 0),
        }
    }
}

/// The stream in reads of pseudo-random sizes; what was not consumed is offered again.
struct Reads<'a> {
    stream: &'a [u8],
    consumed: usize,
    end: usize,
    seed: u8,
    state: u32,
}

impl<'a> Reads<'a> {
    fn new(stream: &'a [u8], seed: u8) -> Self {
        Self {
            stream,
            consumed: 0,
            end: 0,
            seed,
            state: u32::from(seed) | 0x100,
        }
    }

    fn unconsumed(&self) -> &'a [u8] {
        &self.stream[self.consumed..self.end]
    }

    fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.consumed);
        self.consumed += count;
    }

    /// False at the end of the stream. Seed 0 reads everything at once, 1 single bytes.
    fn read(&mut self) -> bool {
        let size = match self.seed {
            0 => usize::MAX,
            1 => 1,
            _ => {
                // Xorshift; the sizes need only differ.
                self.state ^= self.state << 13;
                self.state ^= self.state >> 17;
                self.state ^= self.state << 5;
                1 + (self.state % 61) as usize
            }
        };
        let before = self.end;
        self.end = self.end.saturating_add(size).min(self.stream.len());
        self.end > before
    }
}
