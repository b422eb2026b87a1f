//! `access.format`, read once when the worker starts: a list of items, so that a line
//! costs no parsing. Codes, words and messages are php-fpm's.

use super::time::TimeText;
use super::times::Part;

/// Longest word between braces, bytes.
const MODIFIER_BYTES: usize = 128;
/// php-fpm's form of `%t` and `%T`.
const TIME: &str = "%d/%b/%Y:%H:%M:%S %z";

/// What a line consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// The same in every line: also what is fixed for the life of the worker.
    Text(Vec<u8>),
    /// `%C`
    Cpu(CpuShare),
    /// `%d`
    Duration(Unit),
    /// `%{NAME}e`
    Param(Vec<u8>),
    /// `%f`
    Script,
    /// `%l`
    ContentLength,
    /// `%m`
    Method,
    /// `%M`, bytes to each unit
    Memory(u64),
    /// `%{NAME}o`, by its place in [`Format::headers`]
    Header(usize),
    /// `%q`
    Query,
    /// `%Q`
    QueryMark,
    /// `%r`
    Uri,
    /// `%R`
    Peer,
    /// `%s`
    Status,
    /// `%t`, by its place in [`Format::times`]
    Began(usize),
    /// `%T`, likewise
    Written(usize),
    /// `%u`
    User,
    /// `%{trace_id}x`; of `glasspool.toml` only
    Trace,
    /// `%{span_id}x`; likewise
    Span,
    /// `%{queue_time}x` and others; likewise
    Part(Part),
}

/// Which CPU time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CpuShare {
    Total,
    User,
    System,
}

/// Unit of a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
}

/// A response header that a line shows.
#[derive(Debug)]
pub(super) struct Header {
    /// Its name and the colon, in the case in which scripts write it.
    pub(super) name: Vec<u8>,
    /// What the response under way says.
    pub(super) value: Option<Vec<u8>>,
}

/// What stays the same for the life of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed<'a> {
    pub(crate) pool: &'a str,
    pub(crate) pid: i32,
    pub(crate) supervisor: i32,
}

/// A format that has been read.
#[derive(Debug, Default)]
pub(super) struct Format {
    pub(super) items: Vec<Item>,
    pub(super) headers: Vec<Header>,
    pub(super) times: Vec<TimeText>,
}

impl Format {
    /// Reads a format; an error says what is wrong with it.
    pub(super) fn parse(text: &str, fixed: Fixed<'_>) -> Result<Format, String> {
        let mut format = Format::default();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            format.literal(&rest[..at]);
            rest = &rest[at + 1..];
            // Of several modifiers the last one counts, and an empty one is none, as in php-fpm.
            let mut modifier = None;
            while let Some(inner) = rest.strip_prefix('{') {
                let end = inner
                    .find('}')
                    .filter(|end| *end <= MODIFIER_BYTES)
                    .ok_or("missing closing embrace in the access.format")?;
                modifier = Some(&inner[..end]).filter(|modifier| !modifier.is_empty());
                rest = &inner[end + 1..];
            }
            let Some(code) = rest.chars().next() else { break };
            rest = &rest[code.len_utf8()..];
            format.code(code, modifier, fixed)?;
        }
        format.literal(rest);
        Ok(format)
    }

    /// Whether a line says how much CPU time a request took, which is not known for free.
    pub(super) fn wants_cpu(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Cpu(_)))
    }

    /// Whether a line says where the time went.
    pub(super) fn wants_times(&self) -> bool {
        self.items
            .iter()
            .any(|item| matches!(item, Item::Part(part) if part.is_accounted()))
    }

    fn literal(&mut self, text: &str) {
        if let Some(Item::Text(before)) = self.items.last_mut() {
            before.extend_from_slice(text.as_bytes());
        } else if !text.is_empty() {
            self.items.push(Item::Text(text.as_bytes().to_vec()));
        }
    }

    fn code(&mut self, code: char, modifier: Option<&str>, fixed: Fixed<'_>) -> Result<(), String> {
        let word = modifier.unwrap_or_default().to_ascii_lowercase();
        let item = match code {
            'C' => Item::Cpu(match word.as_str() {
                "" | "total" => CpuShare::Total,
                "user" => CpuShare::User,
                "system" => CpuShare::System,
                _ => {
                    let allowed = "only 'total', 'user' or 'system' are allowed";
                    return Err(format!("{allowed} as a modifier for %C ('{word}')"));
                }
            }),
            'd' => Item::Duration(match word.as_str() {
                "" | "seconds" => Unit::Seconds,
                "milli" | "mili" | "milliseconds" | "miliseconds" => Unit::Milliseconds,
                "micro" | "microseconds" => Unit::Microseconds,
                _ => {
                    let allowed =
                        "only 'seconds', 'milli', 'milliseconds', 'micro' or 'microseconds' are allowed";
                    return Err(format!("{allowed} as a modifier for %d ('{word}')"));
                }
            }),
            'M' => Item::Memory(match word.as_str() {
                "" | "bytes" => 1,
                "kilo" | "kilobytes" => 1 << 10,
                "mega" | "megabytes" => 1 << 20,
                _ => {
                    let allowed = "only 'bytes', 'kilo', 'kilobytes', 'mega' or 'megabytes' are allowed";
                    return Err(format!("{allowed} as a modifier for %M ('{word}')"));
                }
            }),
            'e' => match modifier.filter(|name| !name.is_empty()) {
                Some(name) => Item::Param(name.as_bytes().to_vec()),
                None => {
                    let text = "the name of the environment variable must be set between embraces for %e";
                    return Err(text.to_owned());
                }
            },
            'o' => match modifier.filter(|name| !name.is_empty()) {
                Some(name) => self.header(name),
                None => return Err("the name of the header must be set between embraces for %o".to_owned()),
            },
            'x' => match word.as_str() {
                "trace_id" => Item::Trace,
                "span_id" => Item::Span,
                part => Item::Part(Part::named(part).ok_or_else(|| {
                    let allowed = "only ids and times that are documented are allowed";
                    format!("{allowed} as a modifier for %x ('{word}')")
                })?),
            },
            't' => Item::Began(self.time(modifier)),
            'T' => Item::Written(self.time(modifier)),
            _ => return self.plain_code(code, modifier, fixed),
        };
        self.items.push(item);
        Ok(())
    }

    /// Codes that take no word between braces.
    fn plain_code(&mut self, code: char, modifier: Option<&str>, fixed: Fixed<'_>) -> Result<(), String> {
        if modifier.is_some() {
            return Err(format!("embrace is not allowed for modifier %{code}"));
        }
        let item = match code {
            '%' => {
                self.literal("%");
                return Ok(());
            }
            'n' => {
                self.literal(fixed.pool);
                return Ok(());
            }
            'p' | 'P' => {
                let pid = if code == 'p' { fixed.pid } else { fixed.supervisor };
                self.literal(&pid.to_string());
                return Ok(());
            }
            'f' => Item::Script,
            'l' => Item::ContentLength,
            'm' => Item::Method,
            'q' => Item::Query,
            'Q' => Item::QueryMark,
            'r' => Item::Uri,
            'R' => Item::Peer,
            's' => Item::Status,
            'u' => Item::User,
            _ => return Err(format!("Invalid token in the access.format (%{code})")),
        };
        self.items.push(item);
        Ok(())
    }

    fn header(&mut self, name: &str) -> Item {
        self.headers.push(Header {
            name: [name.as_bytes(), b":"].concat(),
            value: None,
        });
        Item::Header(self.headers.len() - 1)
    }

    fn time(&mut self, format: Option<&str>) -> usize {
        self.times.push(TimeText::new(format.unwrap_or(TIME)));
        self.times.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: Fixed<'_> = Fixed {
        pool: "www",
        pid: 12,
        supervisor: 3,
    };

    fn items(text: &str) -> Vec<Item> {
        Format::parse(text, FIXED).expect("a format").items
    }

    fn refusal(text: &str) -> String {
        Format::parse(text, FIXED).expect_err("no format")
    }

    #[test]
    fn what_never_changes_is_one_text() {
        assert_eq!(items("a%%b %n %p/%P"), [Item::Text(b"a%b www 12/3".to_vec())]);
        assert_eq!(
            items("%m %r"),
            [Item::Method, Item::Text(b" ".to_vec()), Item::Uri]
        );
        assert_eq!(items(""), []);
    }

    #[test]
    fn words_between_braces() {
        assert_eq!(
            items("%{MiliSeconds}d%{micro}d%d"),
            [Unit::Milliseconds, Unit::Microseconds, Unit::Seconds].map(Item::Duration)
        );
        assert_eq!(
            items("%{kilo}M%{MEGABYTES}M%M"),
            [1 << 10, 1 << 20, 1].map(Item::Memory)
        );
        assert_eq!(
            items("%{user}C%{system}C%C"),
            [CpuShare::User, CpuShare::System, CpuShare::Total].map(Item::Cpu)
        );
        assert_eq!(items("%{A_B}e"), [Item::Param(b"A_B".to_vec())]);
        assert_eq!(items("%{A}{B}e"), [Item::Param(b"B".to_vec())]);
        assert_eq!(items("%{}m"), items("%m"));
        assert_eq!(
            items("%{Trace_Id}x%{span_id}x%{on_cpu}x"),
            [Item::Trace, Item::Span, Item::Part(Part::OnCpu)]
        );
        let wants_times = |text: &str| Format::parse(text, FIXED).expect("a format").wants_times();
        assert!(wants_times("%s %{waits}x"));
        assert!(
            !wants_times("%s %C %{trace_id}x %{queue_time}x"),
            "known for free"
        );
        let format = Format::parse("%{X-A}o%{%H}t%T", FIXED).expect("a format");
        assert_eq!(format.items, [Item::Header(0), Item::Began(0), Item::Written(1)]);
        assert_eq!(format.headers[0].name, b"X-A:");
        assert_eq!(format.times.len(), 2);
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (text, says) in [
            (
                "%{x}C",
                "only 'total', 'user' or 'system' are allowed as a modifier for %C ('x')",
            ),
            (
                "%{x}d",
                "only 'seconds', 'milli', 'milliseconds', 'micro' or 'microseconds' are allowed as a modifier for %d ('x')",
            ),
            (
                "%{x}M",
                "only 'bytes', 'kilo', 'kilobytes', 'mega' or 'megabytes' are allowed as a modifier for %M ('x')",
            ),
            (
                "%e",
                "the name of the environment variable must be set between embraces for %e",
            ),
            ("%o", "the name of the header must be set between embraces for %o"),
            ("%{x", "missing closing embrace in the access.format"),
            ("%{x}m", "embrace is not allowed for modifier %m"),
            (
                "%{x}x",
                "only ids and times that are documented are allowed as a modifier for %x ('x')",
            ),
            ("%z", "Invalid token in the access.format (%z)"),
        ] {
            assert_eq!(refusal(text), says);
        }
    }
}
