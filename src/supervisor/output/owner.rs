//! Which request of a worker wrote what has just been read from one of its pipes, if that is
//! certain. Nothing that a script writes is believed.
//!
//! A worker serves one request at a time and numbers them. It publishes in its slot that
//! request *n* begins before it runs it, and that *n* has ended after everything of it is
//! written. So, if the pipe was empty at some moment, and the slot had said before that *e* has
//! ended, then all of requests up to *e* was read before that moment, and none of it comes
//! later. From that follow two rules.
//!
//! 1. If the slot says after a read that *n* is the last that has begun, and *n* is *e* + 1, then
//!    what was read is *n*'s, whether it still runs or has ended.
//! 2. On standard error the worker marks the end of each request before it publishes it. If at
//!    such a moment just as many marks have been read as requests have ended, and none is
//!    about to, then no script has added any and none is lost, and the marks say exactly which
//!    request wrote what. The ids of those that are over are in the slot's ring.
//!
//! Where neither holds none is named.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use glasspool_abi::record::End;
use glasspool_abi::slot::{Cursor, SlotReader, Stage};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::Stream;
use crate::logs::RequestIds;

/// What a worker says between two requests begins so, behind its level.
const BETWEEN: &[u8] = b"Connection disallowed: IP address '";
/// Requests that are over and are remembered.
const REMEMBERED: usize = 64;

/// What is known of one worker's pipes.
#[derive(Debug)]
pub(in crate::supervisor) struct Owner {
    /// `None` if it cannot be read; then nothing is known.
    slot: Option<SlotReader>,
    /// Whether what it says of its start has been written.
    serves: bool,
    /// The last request that had ended when standard output, and error, were empty.
    silent_after: [Option<u64>; 2],
    /// How far the slot's ring was read.
    cursor: Cursor,
    /// The last requests in there.
    recent: VecDeque<(u64, RequestIds)>,
    buffer: Vec<u8>,
}

/// The writers of what was read at once.
#[derive(Debug)]
pub(super) struct Writers<'a> {
    owner: &'a mut Owner,
    by: By,
    /// The last that was looked for: a read may have thousands of lines of it.
    found: Option<(u64, Option<RequestIds>)>,
}

#[derive(Debug)]
enum By {
    Nobody,
    /// All is of this one.
    Silence(RequestIds),
    /// So many marks had been read before, and all are right.
    Marks(u64),
}

impl Owner {
    /// Of a worker with this slot, which is so long.
    pub(in crate::supervisor) fn new(slot: &OwnedFd, slot_bytes: usize) -> Owner {
        Owner {
            // Whoever watches the worker says that it cannot be mapped.
            slot: SlotReader::map(slot, slot_bytes).ok(),
            serves: false,
            silent_after: [None; 2],
            cursor: Cursor::default(),
            recent: VecDeque::new(),
            buffer: Vec::new(),
        }
    }

    /// The worker has said that it is about to serve. What it says of its start came before.
    pub(super) fn serves(&mut self) {
        self.serves = true;
    }

    /// Finds out whether there is nothing in the pipe. Cost: poll(2).
    pub(super) fn listen(&mut self, stream: Stream, pipe: impl AsFd) {
        if !self.serves {
            return;
        }
        if let Some(ended) = self.ended_in_silence(pipe) {
            self.silent_after[stream as usize] = Some(ended);
        }
    }

    /// The last request that had ended, if there is nothing in the pipe since.
    fn ended_in_silence(&self, pipe: impl AsFd) -> Option<u64> {
        let ended = self.slot.as_ref()?.ended();
        let mut pipe = [PollFd::new(&pipe, PollFlags::IN)];
        (rustix::event::poll(&mut pipe, Some(&Timespec::default())) == Ok(0)).then_some(ended)
    }

    /// The writers of what has been read from the stream just now. `before` is how many marks
    /// were read before that, if it is known, and `marks` how many with it.
    pub(super) fn writers(
        &mut self,
        stream: Stream,
        pipe: Option<impl AsFd>,
        before: Option<u64>,
        marks: u64,
    ) -> Writers<'_> {
        let by = match self.silent_after[stream as usize] {
            None => By::Nobody,
            Some(ended) => match self.only_after(ended) {
                Some(request) => By::Silence(request),
                None if stream == Stream::Stderr => {
                    // A request between its mark and its end would make up for one whose mark
                    // was lost: a script had made the pipe non-blocking, and it was full.
                    let pipe = pipe.filter(|_| !self.is_at_an_end());
                    let is_right = |ended: &u64| *ended == marks;
                    let right = pipe.and_then(|pipe| self.ended_in_silence(pipe)).filter(is_right);
                    right.and(before).map_or(By::Nobody, By::Marks)
                }
                None => By::Nobody,
            },
        };
        Writers {
            owner: self,
            by,
            found: None,
        }
    }

    /// Whether a request may have written its mark and not yet said that it has ended.
    fn is_at_an_end(&self) -> bool {
        let stage = self.slot.as_ref().and_then(SlotReader::stage);
        matches!(stage, Some(Stage::End | Stage::Finished))
    }

    /// The request after this one, if none has begun after it.
    fn only_after(&self, ended: u64) -> Option<RequestIds> {
        let (number, request) = self.newest()?;
        (Some(number) == ended.checked_add(1)).then_some(request)
    }

    /// The last request that has begun.
    fn newest(&self) -> Option<(u64, RequestIds)> {
        let begin = self.slot.as_ref()?.read_begin()?;
        let (trace_id, span_id) = (begin.trace_id, begin.span_id);
        Some((begin.number, RequestIds { trace_id, span_id })).filter(|(_, request)| is_real(request))
    }

    /// The request of that number.
    fn find(&mut self, number: u64) -> Option<RequestIds> {
        // What is not the newest any more by now is in the ring.
        if let Some((newest, request)) = self.newest()
            && newest == number
        {
            return Some(request);
        }
        let recent = &mut self.recent;
        let slot = self.slot.as_ref()?;
        // Bounded by the ring; what was lost or makes no sense is counted by the observer.
        let _found = slot.drain(&mut self.cursor, &mut self.buffer, |record| {
            let Some(context) = End::context(record) else {
                return;
            };
            let (trace_id, span_id) = (context.trace_id, context.span_id);
            let request = RequestIds { trace_id, span_id };
            if is_real(&request) {
                if recent.len() >= REMEMBERED {
                    recent.pop_front();
                }
                recent.push_back((context.number, request));
            }
        });
        let found = recent.iter().rev().find(|(known, _)| *known == number);
        found.map(|(_, request)| *request)
    }
}

impl Writers<'_> {
    /// The request of a line with so many marks before it in what was read.
    pub(super) fn of(&mut self, marks: u64) -> Option<RequestIds> {
        match self.by {
            By::Nobody => None,
            By::Silence(request) => Some(request),
            By::Marks(before) => {
                let number = before.checked_add(marks)?.checked_add(1)?;
                match self.found {
                    Some((known, found)) if known == number => found,
                    _ => self.found.insert((number, self.owner.find(number))).1,
                }
            }
        }
    }
}

/// Connections that became no request have a record without ids.
fn is_real(request: &RequestIds) -> bool {
    request.trace_id.0 != [0; 16] && request.span_id.0 != [0; 8]
}

/// Whether a worker says such a line while no request is under way. A script that prints it
/// gets no ids, which is no harm.
pub(super) fn is_of_nobody(line: &[u8]) -> bool {
    line.starts_with(b"ERROR: ") && line.windows(BETWEEN.len()).any(|part| part == BETWEEN)
}

#[cfg(test)]
mod tests {
    use glasspool_abi::create_slot_memory;
    use glasspool_abi::record::{BeginScalars, Encoder, EndScalars};
    use glasspool_abi::slot::{SLOT_HEAD_BYTES, SlotWriter, ring_bytes};
    use glasspool_abi::trace::{SpanId, TraceId};

    use super::*;

    const ERR: Stream = Stream::Stderr;

    /// A worker's slot and pipe with their other sides.
    struct Worker {
        slot: SlotWriter,
        memory: OwnedFd,
        pipe: (OwnedFd, OwnedFd),
        owner: Owner,
    }

    impl Worker {
        fn new() -> Worker {
            let bytes = SLOT_HEAD_BYTES + ring_bytes(1000);
            let memory = create_slot_memory(bytes).expect("a memory file");
            Worker {
                slot: SlotWriter::map(&memory, bytes).expect("maps"),
                owner: Owner::new(&memory, bytes),
                memory,
                pipe: rustix::pipe::pipe().expect("a pipe"),
            }
        }

        /// Serves; its first request comes next.
        fn serving() -> Worker {
            let mut worker = Worker::new();
            worker.owner.serves();
            worker.listen();
            worker
        }

        fn begin(&self, number: u8) {
            self.slot.publish_begin(Worker::record(number).bytes(), None);
        }

        fn record(number: u8) -> Encoder {
            let mut record = Encoder::default();
            record.begin(&BeginScalars {
                number: number.into(),
                start_unix_ns: 1,
                start_mono_ns: 1,
                trace_id: TraceId([number; 16]),
                span_id: SpanId([number; 8]),
                parent: None,
                sampled: false,
                random: false,
            });
            record
        }

        fn end(&mut self, number: u8) {
            let mut end = Encoder::default();
            end.end(&EndScalars::default(), Worker::record(number).bytes());
            let _rings = self.slot.publish_end(number.into(), end.bytes());
        }

        fn write(&self) {
            rustix::io::write(&self.pipe.1, b"x").expect("has room");
        }

        fn listen(&mut self) {
            self.owner.listen(ERR, &self.pipe.0);
        }

        /// Reads one byte; the request that it is put to.
        fn read(&mut self) -> Option<u8> {
            rustix::io::read(&self.pipe.0, &mut [0]).expect("there is something");
            let ids = self.owner.writers(ERR, None::<OwnedFd>, None, 0).of(0);
            self.listen();
            ids.map(|ids| ids.trace_id.0[0])
        }

        /// After all was read, with so many marks of so many that were read before: the
        /// requests of lines before and after each of them.
        fn read_all(&mut self, before: u64, marks: u64) -> Vec<Option<u8>> {
            rustix::io::read(&self.pipe.0, &mut [0; 64]).expect("there is something");
            let pipe = Some(&self.pipe.0);
            let mut writers = self.owner.writers(ERR, pipe, Some(before), before + marks);
            let found = (0..=marks).map(|mark| writers.of(mark).map(|ids| ids.trace_id.0[0]));
            found.collect()
        }

        /// Serves a request from its beginning to its end.
        fn serve(&mut self, number: u8) {
            self.begin(number);
            self.write();
            self.end(number);
        }
    }

    #[test]
    fn what_only_one_request_can_have_written_is_its() {
        let mut worker = Worker::serving();
        worker.begin(1);
        worker.write();
        assert_eq!(worker.read(), Some(1));
        worker.write();
        worker.end(1);
        assert_eq!(worker.read(), Some(1), "it may have ended");
        worker.begin(2);
        worker.write();
        assert_eq!(worker.read(), Some(2));
    }

    #[test]
    fn what_may_be_of_two_requests_is_of_none() {
        let mut worker = Worker::serving();
        worker.begin(1);
        worker.write();
        worker.end(1);
        worker.begin(2);
        assert_eq!(worker.read(), None, "the second may have written it");
        worker.write();
        assert_eq!(worker.read(), Some(2));
        // Two that are over, and a read that leaves something in the pipe.
        worker.end(2);
        worker.begin(3);
        worker.write();
        worker.write();
        assert_eq!(
            worker.read(),
            None,
            "when the pipe was empty the second had not ended"
        );
        assert_eq!(worker.read(), None, "and has not been since");
        worker.write();
        assert_eq!(worker.read(), Some(3));
    }

    #[test]
    fn marks_say_it_as_long_as_there_are_none_too_many() {
        let mut worker = Worker::serving();
        (1..=3).for_each(|number| worker.serve(number));
        assert_eq!(worker.read_all(0, 3), [Some(1), Some(2), Some(3), None]);
        // The fourth runs, and the marks of three have come.
        worker.serve(4);
        worker.begin(5);
        worker.write();
        assert_eq!(worker.read_all(3, 1), [Some(4), Some(5)]);
        // One has been forged: nothing is believed, neither now nor later.
        worker.end(5);
        worker.serve(6);
        assert_eq!(worker.read_all(4, 3), [None; 4]);
        worker.serve(7);
        assert_eq!(worker.read_all(7, 1), [None; 2]);
        // One that has not come yet may still be in the pipe.
        let mut worker = Worker::serving();
        (1..=2).for_each(|number| worker.serve(number));
        assert_eq!(worker.read_all(0, 1), [None; 2]);
    }

    #[test]
    fn a_request_that_is_about_to_end_does_not_make_up_for_a_mark_that_is_lost() {
        let mut worker = Worker::serving();
        worker.serve(1);
        // The mark of the first is lost, those of the second and the third are there.
        assert_eq!(worker.read_all(0, 0), [Some(1)]);
        worker.serve(2);
        worker.begin(3);
        worker.write();
        worker.slot.set_stage(Stage::End);
        assert_eq!(worker.read_all(0, 2), [None; 3]);
    }

    #[test]
    fn marks_are_not_believed_while_there_is_more_in_the_pipe() {
        let mut worker = Worker::serving();
        (1..=2).for_each(|number| worker.serve(number));
        let mut writers = worker.owner.writers(ERR, Some(&worker.pipe.0), Some(0), 2);
        assert_eq!(writers.of(0), None);
    }

    #[test]
    fn what_a_worker_says_before_its_first_request_is_of_none() {
        let mut worker = Worker::new();
        worker.listen();
        worker.write();
        worker.owner.serves();
        worker.begin(1);
        assert_eq!(worker.read(), None);
        worker.write();
        assert_eq!(worker.read(), Some(1));
        let line =
            b"ERROR: accept(), line 68: Connection disallowed: IP address '10.0.0.1' has been dropped.";
        assert!(is_of_nobody(line) && !is_of_nobody(b"ERROR: Unable to open primary script"));
    }

    #[test]
    fn a_slot_full_of_anything_names_nobody_or_what_it_says() {
        for byte in [0x00, 0x01, 0x02, 0x7f, 0xff] {
            let mut worker = Worker::new();
            let junk = vec![byte; SLOT_HEAD_BYTES];
            rustix::io::pwrite(&worker.memory, &junk, 0).expect("writes");
            worker.owner.serves();
            worker.listen();
            worker.write();
            assert_eq!(worker.read(), None, "{byte:#x}");
        }
        let short = Owner::new(&create_slot_memory(4096).expect("a memory file"), 1 << 20);
        assert!(short.slot.is_none());
    }
}
