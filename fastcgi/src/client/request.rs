//! Requests out.

use crate::pairs::{encode_length, push_pair};
use crate::record::{
    HEADER_BYTES, KEEP_CONN, MAX_CONTENT, padding_of, push_padding, push_record, push_stream,
};
use crate::{Header, RecordType, Role};

/// Appends the records of a request to a buffer. It has no state; the order is the caller's: `begin`,
/// `params`, any number of `stdin`, `stdin_end`.
#[derive(Debug)]
pub struct RequestEncoder;

impl RequestEncoder {
    /// Starts request `id`, which is not 0. `keep`: the connection is used again afterwards.
    pub fn begin(buf: &mut Vec<u8>, id: u16, role: Role, keep: bool) {
        let [role1, role0] = (role as u16).to_be_bytes();
        let flags = if keep { KEEP_CONN } else { 0 };
        push_record(
            buf,
            RecordType::BeginRequest,
            id,
            &[role1, role0, flags, 0, 0, 0, 0, 0],
        );
    }

    /// Sends all parameters, and the empty record that ends them.
    ///
    /// Pairs are cut by a record's end only when one is longer than a record can be, because php-fpm
    /// refuses such pairs; it also refuses records above 65528 bytes when padded, so those are not made.
    ///
    /// # Panics
    /// On a name or value of 2^31 bytes or more, which FastCGI cannot express.
    pub fn params<N, V>(buf: &mut Vec<u8>, id: u16, pairs: impl IntoIterator<Item = (N, V)>)
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut stream = ParamsStream::start(buf, id);
        for (name, value) in pairs {
            stream.push(name.as_ref(), value.as_ref());
        }
        stream.close_record();
        push_record(buf, RecordType::Params, id, &[]);
    }

    /// Sends a part of the body; an empty part is nothing.
    pub fn stdin(buf: &mut Vec<u8>, id: u16, content: &[u8]) {
        push_stream(buf, RecordType::Stdin, id, content);
    }

    /// Ends the body.
    pub fn stdin_end(buf: &mut Vec<u8>, id: u16) {
        push_record(buf, RecordType::Stdin, id, &[]);
    }

    /// Tells that the answer is no longer wanted.
    pub fn abort(buf: &mut Vec<u8>, id: u16) {
        push_record(buf, RecordType::AbortRequest, id, &[]);
    }

    /// Asks for variables such as `FCGI_MAX_CONNS`. All names go into one record.
    ///
    /// # Panics
    /// When the names need more than 65528 bytes.
    pub fn get_values<N: AsRef<[u8]>>(buf: &mut Vec<u8>, names: impl IntoIterator<Item = N>) {
        let mut content = Vec::new();
        for name in names {
            push_pair(&mut content, name.as_ref(), b"");
        }
        assert!(
            content.len() <= MAX_CONTENT,
            "the names of one GET_VALUES fit into one record"
        );
        push_record(buf, RecordType::GetValues, 0, &content);
    }
}

/// PARAMS records under construction, in place: the header is written when a record is closed.
struct ParamsStream<'a> {
    buf: &'a mut Vec<u8>,
    id: u16,
    /// Where the content of the open record starts.
    content_start: usize,
}

impl<'a> ParamsStream<'a> {
    fn start(buf: &'a mut Vec<u8>, id: u16) -> Self {
        buf.extend_from_slice(&[0; HEADER_BYTES]);
        Self {
            content_start: buf.len(),
            buf,
            id,
        }
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let (name_length, name_count) = encode_length(name.len());
        let (value_length, value_count) = encode_length(value.len());
        let pair = name_count + value_count + name.len() + value.len();
        if pair > self.room() && pair <= MAX_CONTENT {
            self.next_record();
        }
        for part in [
            &name_length[..name_count],
            &value_length[..value_count],
            name,
            value,
        ] {
            self.push_bytes(part);
        }
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.room() == 0 {
                self.next_record();
            }
            let (part, after) = rest.split_at(rest.len().min(self.room()));
            self.buf.extend_from_slice(part);
            rest = after;
        }
    }

    fn room(&self) -> usize {
        MAX_CONTENT - (self.buf.len() - self.content_start)
    }

    fn next_record(&mut self) {
        self.close_record();
        self.buf.extend_from_slice(&[0; HEADER_BYTES]);
        self.content_start = self.buf.len();
    }

    /// Writes header and padding. A record without content is taken back: it would end the stream.
    fn close_record(&mut self) {
        let header_start = self.content_start - HEADER_BYTES;
        let content = self.buf.len() - self.content_start;
        if content == 0 {
            self.buf.truncate(header_start);
            return;
        }
        let length = u16::try_from(content).expect("room() keeps the content below MAX_CONTENT");
        let header = Header::padded(RecordType::Params, self.id, length);
        self.buf[header_start..self.content_start].copy_from_slice(&header.encode());
        push_padding(self.buf, padding_of(content));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_request_is_what_the_specification_shows() {
        let mut buf = Vec::new();
        RequestEncoder::begin(&mut buf, 1, Role::Responder, true);
        RequestEncoder::params(&mut buf, 1, [("SERVER_PORT", "80")]);
        RequestEncoder::stdin(&mut buf, 1, b"quantity=100&item=3047936");
        RequestEncoder::stdin_end(&mut buf, 1);
        let expected: [&[u8]; 5] = [
            b"\x01\x01\0\x01\0\x08\0\0\0\x01\x01\0\0\0\0\0",
            b"\x01\x04\0\x01\0\x0f\x01\0\x0b\x02SERVER_PORT80\0",
            b"\x01\x04\0\x01\0\0\0\0",
            b"\x01\x05\0\x01\0\x19\x07\0quantity=100&item=3047936\0\0\0\0\0\0\0",
            b"\x01\x05\0\x01\0\0\0\0",
        ];
        assert_eq!(buf, expected.concat());
    }

    #[test]
    fn no_parameters_are_one_empty_record() {
        let mut buf = Vec::new();
        RequestEncoder::params(&mut buf, 1, [] as [(&str, &str); 0]);
        assert_eq!(buf, b"\x01\x04\0\x01\0\0\0\0");
    }

    #[test]
    fn a_pair_moves_to_the_next_record_rather_than_straddle() {
        let mut buf = Vec::new();
        let value = vec![b'v'; 40_000];
        RequestEncoder::params(&mut buf, 1, [("A", &value), ("B", &value)]);
        let pair = 1 + 4 + 1 + 40_000;
        let record = 8 + pair + usize::from(padding_of(pair));
        assert_eq!(buf[8..14], *b"\x01\x80\x00\x9c\x40A");
        assert_eq!(buf[record + 8..record + 14], *b"\x01\x80\x00\x9c\x40B");
        assert_eq!(buf.len(), 2 * record + 8);
    }
}
