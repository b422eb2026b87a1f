//! What can be wrong with a configuration, as one catalogue.
//!
//! Where php-fpm has a message for a mistake, `fault` and `pool` keep its text word for word: log tools and php-fpm's
//! own tests match it to the end of the line. What was found, what is allowed, and the place where php-fpm names none
//! follow as [`ConfigError::help`]. php-fpm calls a scalar "entry" and an array "directive"; so do these texts.

mod fault;
mod pool;
mod shown;
mod value;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use fault::Fault;
pub(super) use fault::Stage;
pub use pool::PoolFault;
pub use shown::{Nearest, Shown};
pub use value::BadValue;

/// A configuration that was refused: where, and why. `Display` is always one line and says everything; the lines
/// that php-fpm would log are made by [`LoadFailure`](super::LoadFailure).
#[derive(Debug)]
pub struct ConfigError(Box<Inner>);

/// Boxed to keep the results of this room small.
#[derive(Debug)]
struct Inner {
    fault: Fault,
    place: Option<Place>,
    /// What is written there, where the fault's own text does not say it.
    found: Option<Shown>,
    source: Option<io::Error>,
    /// The `include` lines that led to the file, innermost first.
    includes: Vec<Include>,
}

/// An `include` and the file that it brought in.
#[derive(Debug)]
pub(super) struct Include {
    pub(super) at: Place,
    pub(super) file: Shown,
}

impl ConfigError {
    /// Where the mistake stands; absent when no line can be blamed (the first file cannot be opened, no pool at all).
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.0.fault
    }

    /// The cause as the system gave it.
    pub fn io(&self) -> Option<&io::Error> {
        self.0.source.as_ref()
    }

    /// What was found and what is allowed, where the fault's own text leaves it out.
    pub fn help(&self) -> Option<String> {
        let found = self.0.found.as_ref().map(|found| format!("found '{found}'"));
        let parts: Vec<String> = found.into_iter().chain(self.0.fault.allowed()).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// php-fpm's text for it, with the system's reason in its manner; without place.
    pub(super) fn message(&self) -> String {
        match &self.0.source {
            Some(source) => format!("{}: {}", self.0.fault, Errno(source)),
            None => self.0.fault.to_string(),
        }
    }

    pub(super) fn includes(&self) -> &[Include] {
        &self.0.includes
    }

    pub(super) fn new(place: Option<&Place>, fault: Fault) -> Self {
        Self(Box::new(Inner {
            fault,
            place: place.cloned(),
            found: None,
            source: None,
            includes: Vec::new(),
        }))
    }

    pub(super) fn at(place: &Place, fault: Fault) -> Self {
        Self::new(Some(place), fault)
    }

    pub(super) fn without_place(fault: Fault) -> Self {
        Self::new(None, fault)
    }

    /// A file that cannot be read.
    pub(super) fn open(path: &Path, place: Option<&Place>, source: io::Error) -> Self {
        let path = Shown::from(path);
        Self::new(place, Fault::Open { path }).because(source)
    }

    /// With what is written there.
    pub(super) fn found(mut self, found: Shown) -> Self {
        self.0.found = Some(found);
        self
    }

    pub(super) fn because(mut self, source: io::Error) -> Self {
        self.0.source = Some(source);
        self
    }

    pub(super) fn included(mut self, at: &Place, file: &Path) -> Self {
        let (at, file) = (at.clone(), Shown::from(file));
        self.0.includes.push(Include { at, file });
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "[{place}] ")?;
        }
        f.write_str(&self.message())?;
        self.help().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

// The system's reason is part of the one line, so there is no `source` that would repeat it.
impl std::error::Error for ConfigError {}

/// A line of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named: on the command line, by an `include`, or by discovery. Shared, since each value of
    /// a section remembers its line.
    pub file: Arc<Path>,
    /// Line, counted from one.
    pub line: usize,
    /// Column in characters, counted from one; known for TOML only.
    pub column: Option<usize>,
}

impl Place {
    pub(super) fn line(file: impl Into<Arc<Path>>, line: usize) -> Self {
        Self {
            file: file.into(),
            line,
            column: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Shown::from(&*self.file), self.line)?;
        self.column.map_or(Ok(()), |column| write!(f, ":{column}"))
    }
}

/// A system's reason as php-fpm writes it: `No such file or directory (2)`.
struct Errno<'a>(&'a io::Error);

impl fmt::Display for Errno<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match self.0.raw_os_error() {
            Some(number) => {
                // The standard library ends its text so.
                let reason = text.strip_suffix(&format!(" (os error {number})"));
                write!(f, "{} ({number})", reason.unwrap_or(&text))
            }
            None => write!(f, "{}", Shown::sentence(&text)),
        }
    }
}
