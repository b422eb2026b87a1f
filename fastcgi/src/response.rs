//! The application's side of a response: output in, records out.

use crate::record::{HEADER_BYTES, MAX_CONTENT, padding_of, push_padding, push_stream};
use crate::{EndRequest, Header, ProtocolStatus, RecordType};

/// Builds the byte stream of one response after the other. The buffer is kept and used again.
///
/// Output that comes in small pieces shares one STDOUT record until something else is written or the
/// pending bytes are taken: PHP writes a page in hundreds of pieces, each of which would otherwise get eight
/// bytes of header and up to seven of padding. Pending bytes are whole records at any time, padded to eight
/// bytes as php-fpm does.
///
/// No empty STDOUT or STDERR record is sent at the end, though section 3.3 asks for one per stream:
/// php-fpm does not (`fcgi_flush` in `main/fastcgi.c` of php-src), and its interface is the one to match.
/// END_REQUEST ends both streams; an empty record between output and errors made web servers cut the
/// response short (php-src `sapi/fpm/tests/bug72185-fcgi-empty-frame.phpt`).
#[derive(Debug, Default)]
pub struct ResponseWriter {
    buf: Vec<u8>,
    /// Bytes at the front of `buf` that [`ResponseWriter::consume`] has dropped.
    sent: usize,
    request_id: u16,
    /// The last record of `buf`, if it is STDOUT that has not been given out.
    open: Option<OpenRecord>,
}

/// A STDOUT record at the end of the buffer that more content may join.
#[derive(Debug, Clone, Copy)]
struct OpenRecord {
    /// Where its header is in the buffer.
    start: usize,
    /// Bytes of content so far, at most [`MAX_CONTENT`].
    content: usize,
}

impl ResponseWriter {
    /// A writer with nothing pending. Takes no memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What follows belongs to this request. Bytes that are pending stay.
    pub fn begin(&mut self, request_id: u16) {
        self.open = None;
        self.request_id = request_id;
    }

    /// Appends to the response. Copies `content`; empty content is nothing, not the end of the stream.
    pub fn stdout(&mut self, content: &[u8]) {
        let mut rest = content;
        while !rest.is_empty() {
            let mut open = self
                .open
                .take()
                .filter(|open| open.content < MAX_CONTENT)
                .unwrap_or(OpenRecord {
                    start: self.buf.len(),
                    content: 0,
                });
            let (part, after) = rest.split_at(rest.len().min(MAX_CONTENT - open.content));
            let content = open.content + part.len();
            let length = u16::try_from(content).expect("MAX_CONTENT fits the header's field");
            let header = Header::padded(RecordType::Stdout, self.request_id, length).encode();
            if open.content == 0 {
                self.buf.extend_from_slice(&header);
            } else {
                self.buf[open.start..][..HEADER_BYTES].copy_from_slice(&header);
                // The padding of before goes; the content grows in its place.
                self.buf.truncate(open.start + HEADER_BYTES + open.content);
            }
            self.buf.extend_from_slice(part);
            push_padding(&mut self.buf, padding_of(content));
            open.content = content;
            self.open = Some(open);
            rest = after;
        }
    }

    /// Appends to the error stream, in a record of its own. Empty content is nothing.
    pub fn stderr(&mut self, content: &[u8]) {
        self.open = None;
        push_stream(&mut self.buf, RecordType::Stderr, self.request_id, content);
    }

    /// Ends the response. php-fpm sends `app_status` 0 whatever the script's exit status.
    pub fn end(&mut self, app_status: u32, status: ProtocolStatus) {
        self.open = None;
        EndRequest {
            request_id: self.request_id,
            app_status,
            protocol_status: status,
        }
        .encode(&mut self.buf);
    }

    /// Appends whole records made elsewhere: the replies of [`crate::RequestReader::feed`].
    pub fn raw(&mut self, records: &[u8]) {
        if !records.is_empty() {
            self.open = None;
            self.buf.extend_from_slice(records);
        }
    }

    /// What is to be sent: whole records, but for the part that [`ResponseWriter::consume`] took.
    ///
    /// A caller that sends from here calls `clear_pending` or `consume` before it writes more: otherwise a
    /// record whose header is on its way could still grow.
    pub fn pending(&self) -> &[u8] {
        &self.buf[self.sent..]
    }

    /// Bytes to be sent.
    pub fn pending_len(&self) -> usize {
        self.buf.len() - self.sent
    }

    /// All pending bytes were sent, or nobody wants them.
    pub fn clear_pending(&mut self) {
        self.buf.clear();
        self.sent = 0;
        self.open = None;
    }

    /// The first `count` pending bytes were sent; more than there are counts as all.
    pub fn consume(&mut self, count: usize) {
        if count >= self.pending_len() {
            self.clear_pending();
        } else if count > 0 {
            self.sent += count;
            self.open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_share_a_record_and_are_always_whole() {
        let mut writer = ResponseWriter::new();
        writer.begin(1);
        writer.stdout(b"Status: 200\r\n");
        assert_eq!(
            writer.pending(),
            b"\x01\x06\0\x01\0\x0d\x03\0Status: 200\r\n\0\0\0"
        );
        writer.stdout(b"");
        writer.stdout(b"\r\nx");
        assert_eq!(writer.pending(), b"\x01\x06\0\x01\0\x10\0\0Status: 200\r\n\r\nx");
        writer.stderr(b"oops");
        writer.stdout(b"y");
        writer.end(0, ProtocolStatus::RequestComplete);
        let expected: [&[u8]; 4] = [
            b"\x01\x06\0\x01\0\x10\0\0Status: 200\r\n\r\nx",
            b"\x01\x07\0\x01\0\x04\x04\0oops\0\0\0\0",
            b"\x01\x06\0\x01\0\x01\x07\0y\0\0\0\0\0\0\0",
            b"\x01\x03\0\x01\0\x08\0\0\0\0\0\0\0\0\0\0",
        ];
        assert_eq!(writer.pending(), expected.concat());
    }

    #[test]
    fn a_full_record_has_65528_bytes_and_no_padding() {
        let mut writer = ResponseWriter::new();
        writer.begin(0x0203);
        writer.stdout(&[b'a'; MAX_CONTENT - 1]);
        writer.stdout(&[b'b'; 2]);
        let pending = writer.pending();
        assert_eq!(pending[..8], [1, 6, 2, 3, 0xff, 0xf8, 0, 0]);
        assert_eq!(pending[8 + MAX_CONTENT - 1], b'b');
        assert_eq!(
            pending[8 + MAX_CONTENT..],
            [1, 6, 2, 3, 0, 1, 7, 0, b'b', 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn a_record_that_was_partly_sent_does_not_grow() {
        let mut writer = ResponseWriter::new();
        writer.begin(1);
        writer.stdout(b"12345678");
        writer.consume(3);
        assert_eq!(writer.pending_len(), 13);
        writer.stdout(b"abcdefgh");
        let expected: [&[u8]; 2] = [b"\x01\0\x08\0\x0012345678", b"\x01\x06\0\x01\0\x08\0\0abcdefgh"];
        assert_eq!(writer.pending(), expected.concat());
        writer.consume(usize::MAX);
        assert!(writer.pending().is_empty());
        writer.stdout(b"z");
        assert_eq!(writer.pending(), b"\x01\x06\0\x01\0\x01\x07\0z\0\0\0\0\0\0\0");
    }

    #[test]
    fn replies_go_between_records() {
        let mut writer = ResponseWriter::new();
        writer.begin(1);
        writer.stdout(b"a");
        writer.raw(b"");
        writer.stdout(b"b");
        assert_eq!(writer.pending_len(), 16, "nothing came between");
        writer.raw(b"RECORD");
        writer.stdout(b"c");
        assert_eq!(writer.pending_len(), 16 + 6 + 16);
    }
}
