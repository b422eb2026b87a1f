//! The texts of a record: what each is, how long it may be, and how they are read.

/// A record has about so many texts.
const USUAL_TEXTS: usize = 16;
/// And never more than so many.
const MOST_TEXTS: usize = 2 * Text::ALL.len();

macro_rules! texts {
    ($($(#[$doc:meta])* $variant:ident = $tag:literal, max $max:literal;)*) => {
        /// What a text of a record is. The number is the tag on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Text { $($(#[$doc])* $variant = $tag,)* }

        impl Text {
            const ALL: &'static [Text] = &[$(Text::$variant,)*];

            /// Longest text in bytes; what is longer is cut.
            pub const fn max_bytes(self) -> usize {
                match self { $(Text::$variant => $max,)* }
            }

            fn from_tag(tag: u16) -> Option<Text> {
                Text::ALL.iter().copied().find(|t| *t as u16 == tag)
            }
        }
    };
}

texts! {
    /// REQUEST_METHOD.
    Method = 1, max 32;
    /// Path of REQUEST_URI, without the query.
    Path = 2, max 1024;
    /// QUERY_STRING.
    Query = 3, max 768;
    /// SCRIPT_FILENAME after the path fix-ups.
    Script = 4, max 512;
    /// `http` or `https`.
    Scheme = 5, max 8;
    /// HTTP_HOST, else SERVER_NAME, with its port if it has one.
    Host = 6, max 255;
    /// SERVER_PORT.
    Port = 7, max 8;
    /// The client's address: REMOTE_ADDR, or what trusted proxies say it is.
    Client = 8, max 64;
    /// HTTP_USER_AGENT.
    UserAgent = 9, max 256;
    /// SERVER_PROTOCOL, for example `HTTP/1.1`.
    Protocol = 10, max 16;
    /// `tracestate` as received, already checked.
    TraceState = 11, max 512;
    /// Type of the exception, or PHP's name of the error level.
    ErrorType = 12, max 128;
    /// PHP's last error message.
    ErrorMessage = 13, max 512;
    /// The file PHP named with that message.
    ErrorFile = 14, max 384;
    /// The URI as php-fpm's path fix-ups leave it (what its status page shows and its
    /// status path is compared with), where that is not [`Text::Path`].
    ScriptUri = 15, max 512;
    /// User of HTTP authentication.
    User = 16, max 64;
    /// REMOTE_ADDR, where that is not [`Text::Client`].
    Peer = 17, max 64;
    /// REMOTE_PORT.
    PeerPort = 18, max 5;
    /// The context of a caller that is not trusted, as a `traceparent`: to be linked.
    Link = 19, max 55;
    /// How long the request had waited for this worker, decimal nanoseconds.
    Queued = 20, max 20;
    /// `X-Glasspool-Route` of the response.
    Route = 21, max 128;
    /// A line of PHP's log, see [`LINE`](super::LINE).
    Line = 22, max 2048;
}

/// The texts of one record, owned and bounded: one behind the other, as a request has a
/// dozen of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts {
    bytes: Vec<u8>,
    /// What each is, and where it ends in `bytes`.
    ends: Vec<(Text, usize)>,
}

impl Texts {
    /// The text of that kind; the last one if a worker wrote several.
    pub fn get(&self, text: Text) -> Option<&[u8]> {
        let index = self.ends.iter().rposition(|(kind, _)| *kind == text)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some(&self.bytes[start..self.ends[index].1])
    }

    /// The same as UTF-8, wrong bytes replaced.
    pub fn text(&self, text: Text) -> Option<std::borrow::Cow<'_, str>> {
        self.get(text).map(String::from_utf8_lossy)
    }

    fn push(&mut self, text: Text, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push((text, self.bytes.len()));
    }
}

impl FromIterator<(Text, Vec<u8>)> for Texts {
    fn from_iter<I: IntoIterator<Item = (Text, Vec<u8>)>>(iter: I) -> Self {
        let mut texts = Texts::default();
        for (text, bytes) in iter {
            texts.push(text, &bytes);
        }
        texts
    }
}

/// Tag and bytes of the first text, and what comes after it.
fn split_text(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(4)?;
    let length = usize::from(u16::from_ne_bytes([head[2], head[3]]));
    let (value, rest) = rest.split_at_checked(length)?;
    let tag = u16::from_ne_bytes([head[0], head[1]]);
    // The ring pads records with zero bytes.
    (tag != 0).then_some((tag, value, rest))
}

/// Two texts where they are, see [`End::find`](super::End::find).
pub(super) fn find_texts(mut bytes: &[u8], wanted: [Text; 2]) -> [Option<&[u8]>; 2] {
    let mut found = [None; 2];
    for _ in 0..MOST_TEXTS {
        let Some((tag, value, rest)) = split_text(bytes) else {
            break;
        };
        for (text, place) in wanted.iter().zip(&mut found) {
            if *text as u16 == tag {
                *place = Some(&value[..value.len().min(text.max_bytes())]);
            }
        }
        if found.iter().all(Option::is_some) {
            break;
        }
        bytes = rest;
    }
    found
}

/// All texts; `None` if one is not known, too long or cut, or if they are too many.
pub(super) fn decode_texts(mut bytes: &[u8]) -> Option<Texts> {
    let mut texts = Texts {
        bytes: Vec::with_capacity(bytes.len()),
        ends: Vec::with_capacity(USUAL_TEXTS),
    };
    while let Some((head, rest)) = bytes.split_at_checked(4) {
        let tag = u16::from_ne_bytes([head[0], head[1]]);
        if tag == 0 {
            break; // The ring pads records with zero bytes.
        }
        let length = usize::from(u16::from_ne_bytes([head[2], head[3]]));
        let (value, rest) = rest.split_at_checked(length)?;
        let text = Text::from_tag(tag)?;
        if length > text.max_bytes() || texts.ends.len() >= MOST_TEXTS {
            return None;
        }
        texts.push(text, value);
        bytes = rest;
    }
    Some(texts)
}

#[cfg(test)]
impl Texts {
    pub(super) fn are_bounded(&self) -> bool {
        self.ends.len() <= MOST_TEXTS
    }
}
