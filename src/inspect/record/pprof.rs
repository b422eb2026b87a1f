//! The format of `pprof`: a gzipped protocol buffer.
//!
//! The messages are those of
//! <https://github.com/google/pprof/blob/main/proto/profile.proto>, with its field
//! numbers, as far as they are written here. Text stands once in a table, whose first
//! entry is the empty text; 0 so means "none".

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::tally::{Spot, Tally};
use super::write::About;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// Innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// The table of texts.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    ids: HashMap<String, i64>,
}

impl Texts {
    fn id(&mut self, text: &str) -> i64 {
        if self.all.is_empty() {
            self.all.push(String::new());
            self.ids.insert(String::new(), 0);
        }
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = i64::try_from(self.all.len()).unwrap_or(0);
        self.all.push(text.to_owned());
        self.ids.insert(text.to_owned(), id);
        id
    }
}

/// Writes a profile; `label` names what its groups are (`pool`, `uri`, `process`).
pub(super) fn write_pprof(tally: &Tally, about: &About, label: &str, out: &mut dyn Write) -> io::Result<()> {
    let message = profile(tally, about, label);
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&message.encode_to_vec())?;
    gzip.finish()?.flush()
}

fn profile(tally: &Tally, about: &About, label: &str) -> Profile {
    let mut texts = Texts::default();
    let period = nanos(about.period);
    let mut kind = |name, unit| ValueType {
        r#type: texts.id(name),
        unit: texts.id(unit),
    };
    let (samples, wall) = (kind("samples", "count"), kind("wall", "nanoseconds"));
    let (function, location) = places(tally.spots(), &mut texts);
    let sample = tally.entries().into_iter().map(|entry| {
        let count = i64::try_from(entry.count).unwrap_or(i64::MAX);
        Sample {
            location_id: entry.stack.iter().rev().map(|id| id_of(id.0)).collect(),
            value: vec![count, count.saturating_mul(period)],
            label: vec![Label {
                key: texts.id(label),
                str: texts.id(entry.group),
            }],
        }
    });
    let sample = sample.collect();
    let comment = vec![texts.id(&about.title)];
    Profile {
        sample_type: vec![samples, wall],
        sample,
        location,
        function,
        time_nanos: about.began.duration_since(UNIX_EPOCH).map_or(0, nanos),
        duration_nanos: nanos(about.took),
        period_type: Some(wall),
        period,
        comment,
        string_table: texts.all,
    }
}

/// A location for each frame, and a function for each name in each file.
fn places(spots: &[Spot], texts: &mut Texts) -> (Vec<Function>, Vec<Location>) {
    let mut functions = Vec::new();
    let mut ids = HashMap::new();
    let locations = spots.iter().enumerate().map(|(index, spot)| {
        let name = texts.id(&spot.title());
        let filename = texts.id(spot.file.as_deref().unwrap_or_default());
        let function_id = *ids.entry((name, filename)).or_insert_with(|| {
            let id = id_of(functions.len());
            functions.push(Function {
                id,
                name,
                system_name: name,
                filename,
            });
            id
        });
        Location {
            id: id_of(index),
            line: vec![Line {
                function_id,
                line: spot.line.map_or(0, i64::from),
            }],
        }
    });
    let locations = locations.collect();
    (functions, locations)
}

/// Ids count from 1; 0 is "none".
fn id_of(index: usize) -> u64 {
    index as u64 + 1
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::inspect::args::By;
    use crate::inspect::testing::{blocked, running};

    #[test]
    fn a_profile_reads_back() {
        let mut tally = Tally::new(By::Pool, false);
        for _ in 0..3 {
            tally.add(&blocked(1));
        }
        tally.add(&running(2));
        let about = About {
            title: "www".to_owned(),
            period: Duration::from_millis(10),
            began: UNIX_EPOCH + Duration::from_secs(5),
            took: Duration::from_secs(1),
        };
        let mut file = Vec::new();
        write_pprof(&tally, &about, "pool", &mut file).unwrap();
        let mut bytes = Vec::new();
        GzDecoder::new(file.as_slice()).read_to_end(&mut bytes).unwrap();
        let profile = Profile::decode(bytes.as_slice()).unwrap();
        let text = |id: i64| profile.string_table[usize::try_from(id).unwrap()].as_str();
        assert_eq!(profile.string_table[0], "");
        assert_eq!(profile.time_nanos, 5_000_000_000);
        let sample = profile.sample.iter().find(|sample| sample.value[0] == 3).unwrap();
        assert_eq!(sample.value[1], 30_000_000);
        assert_eq!(
            (text(sample.label[0].key), text(sample.label[0].str)),
            ("pool", "www")
        );
        let names: Vec<_> = sample
            .location_id
            .iter()
            .map(|id| {
                let location = profile
                    .location
                    .iter()
                    .find(|location| location.id == *id)
                    .unwrap();
                let function = profile
                    .function
                    .iter()
                    .find(|function| function.id == location.line[0].function_id);
                (
                    text(function.unwrap().name),
                    text(function.unwrap().filename),
                    location.line[0].line,
                )
            })
            .collect();
        assert_eq!(names[0], ("[poll, tcp 10.0.3.7:3306]", "", 0));
        assert_eq!(names[2], ("App\\Repo->find", "/srv/src/Repo.php", 42));
        assert_eq!(names.len(), 5);
    }
}
