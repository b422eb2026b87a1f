//! Rules of sampling that are raised for a time in the running program
//! (`glasspool trace`): a page that the supervisor writes and every worker reads.
//!
//! | word | written by the supervisor |
//! |---|---|
//! | sequence | odd while the rest is being written; 0 before the first time |
//! | count | rules that follow |
//! | rules | [`RULE_WORDS`] each |
//!
//! A worker loads the sequence once for each request, and the rest only when it has
//! changed: a request costs no system call and, without rules, nothing but that load.
//! Rules end by themselves, by the clock that requests are timed with. The memory file is
//! sealed: nobody but its maker can ever write to it, and nobody can cut it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use super::TraceId;
use super::sampling::{Glob, METHOD_BYTES, PATTERN_BYTES, Which, is_within};
use crate::mapping::{MapError, Words};

/// Rules at a time.
pub const MOST_RAISED: usize = 16;
/// Longest name of a pool that a rule can be for, in bytes.
pub const POOL_BYTES: usize = 128;

const SEQUENCE: usize = 0;
const COUNT: usize = 1;
const RULES: usize = 2;
/// End, ratio, lengths; then the texts.
const RULE_WORDS: usize = 3 + (PATTERN_BYTES + METHOD_BYTES + POOL_BYTES) / 8;
const PAGE_BYTES: usize = ((RULES + MOST_RAISED * RULE_WORDS) * 8).next_multiple_of(4096);
/// How often a reader starts again when the supervisor writes at the same time.
const RETRIES: usize = 4;

/// A raised rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// For which requests.
    pub which: Which,
    /// Of which pool; `None` for all.
    pub pool: Option<String>,
    /// Share of them that is sampled, 0 to 1, whatever their callers and the sampler say.
    pub ratio: f64,
    /// When it ends: monotonic clock, nanoseconds.
    pub until_mono_ns: u64,
}

impl Raised {
    fn pool_is(&self, name: &str) -> bool {
        self.pool
            .as_ref()
            .is_none_or(|pool| pool.eq_ignore_ascii_case(name))
    }
}

/// The supervisor's side.
#[derive(Debug)]
pub struct RaisedPage {
    words: Words,
    file: OwnedFd,
}

impl RaisedPage {
    /// Makes an empty page.
    ///
    /// # Errors
    /// When the kernel gives no memory file, or cannot seal it against others
    /// (F_SEAL_FUTURE_WRITE: Linux 5.1).
    pub fn create() -> Result<RaisedPage, MapError> {
        let os = |call| {
            move |e: rustix::io::Errno| MapError::Os {
                call,
                bytes: PAGE_BYTES,
                source: e.into(),
            }
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("glasspool-raised", flags).map_err(os("memfd_create"))?;
        rustix::fs::ftruncate(&file, PAGE_BYTES as u64).map_err(os("ftruncate"))?;
        let seal = |seals| rustix::fs::fcntl_add_seals(&file, seals).map_err(os("fcntl(F_ADD_SEALS)"));
        seal(SealFlags::SHRINK | SealFlags::GROW)?;
        let words = Words::map(&file, PAGE_BYTES, true)?;
        // Our own mapping stays writable (fcntl(2), F_SEAL_FUTURE_WRITE).
        seal(SealFlags::FUTURE_WRITE | SealFlags::SEAL)?;
        Ok(RaisedPage { words, file })
    }

    /// The memory file, for [`RaisedRules::map`].
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Puts these rules in the place of all before; those beyond [`MOST_RAISED`], and
    /// texts that are too long for the page, are left out.
    pub fn publish(&self, rules: &[Raised]) {
        let fitting = rules.iter().filter(|rule| fits(rule)).take(MOST_RAISED);
        let mut put_at = RULES;
        let mut put = |word: u64| {
            self.store(put_at, word);
            put_at += 1;
        };
        let before = self.words.get(SEQUENCE).map_or(0, |w| w.load(Ordering::Relaxed));
        self.store(SEQUENCE, before.wrapping_add(1));
        fence(Ordering::Release);
        let mut count = 0;
        for rule in fitting {
            count += 1;
            let texts = texts(rule);
            let lengths = texts
                .iter()
                .rev()
                .fold(0, |all, (text, _)| all << 16 | text.len() as u64);
            [rule.until_mono_ns, rule.ratio.to_bits(), lengths]
                .into_iter()
                .for_each(&mut put);
            for (text, room) in texts {
                for at in (0..room).step_by(8) {
                    let mut word = [0; 8];
                    let rest = &text[at.min(text.len())..];
                    let here = rest.len().min(8);
                    word[..here].copy_from_slice(&rest[..here]);
                    put(u64::from_ne_bytes(word));
                }
            }
        }
        self.store(COUNT, count);
        if let Some(sequence) = self.words.get(SEQUENCE) {
            sequence.store(before.wrapping_add(2), Ordering::Release);
        }
    }

    fn store(&self, index: usize, word: u64) {
        if let Some(at) = self.words.get(index) {
            at.store(word, Ordering::Relaxed);
        }
    }
}

/// Path, method and pool, each with its room on the page.
fn texts(rule: &Raised) -> [(&[u8], usize); 3] {
    let path = rule.which.path.as_ref().map_or("", Glob::as_str);
    let method = rule.which.method.as_deref().unwrap_or_default();
    let pool = rule.pool.as_deref().unwrap_or_default();
    [
        (path.as_bytes(), PATTERN_BYTES),
        (method.as_bytes(), METHOD_BYTES),
        (pool.as_bytes(), POOL_BYTES),
    ]
}

fn fits(rule: &Raised) -> bool {
    texts(rule).iter().all(|(text, room)| text.len() <= *room)
}

/// A worker's side: read-only.
#[derive(Debug)]
pub struct RaisedRules {
    words: Words,
    /// Whose worker it is.
    pool: String,
    /// The sequence that `rules` belong to.
    seen: u64,
    /// Those for this pool.
    rules: Vec<Raised>,
}

impl RaisedRules {
    /// Maps the page for a worker of that pool.
    ///
    /// # Errors
    /// When it is not what [`RaisedPage::create`] makes.
    pub fn map(file: impl AsFd, pool: &str) -> Result<RaisedRules, MapError> {
        Ok(RaisedRules {
            words: Words::map(file, PAGE_BYTES, false)?,
            pool: pool.to_owned(),
            seen: 0,
            rules: Vec::new(),
        })
    }

    /// Whether a rule may be in force. Cost: one load, unless the rules have changed.
    pub fn is_any(&mut self) -> bool {
        let now = self.load(SEQUENCE, Ordering::Acquire);
        if now != self.seen {
            self.read_again();
        }
        !self.rules.is_empty()
    }

    /// Whether a rule that is in force at `now_mono_ns` wants this request sampled; the
    /// first one for such requests decides.
    pub fn sample(&self, method: &[u8], path: &[u8], trace_id: &TraceId, now_mono_ns: u64) -> bool {
        let in_force = self.rules.iter().filter(|rule| rule.until_mono_ns > now_mono_ns);
        let mut meant = in_force.filter(|rule| rule.which.matches(method, path));
        meant.next().is_some_and(|rule| is_within(rule.ratio, trace_id))
    }

    /// Keeps what it has while the supervisor writes; the next request tries again.
    fn read_again(&mut self) {
        for _ in 0..RETRIES {
            let before = self.load(SEQUENCE, Ordering::Acquire);
            let count = usize::try_from(self.load(COUNT, Ordering::Relaxed)).unwrap_or(0);
            let rules =
                (0..count.min(MOST_RAISED)).filter_map(|index| self.decode(RULES + index * RULE_WORDS));
            let rules: Vec<Raised> = rules.filter(|rule| rule.pool_is(&self.pool)).collect();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.load(SEQUENCE, Ordering::Relaxed) {
                self.seen = before;
                self.rules = rules;
                return;
            }
        }
    }

    fn decode(&self, at: usize) -> Option<Raised> {
        let lengths = self.load(at + 2, Ordering::Relaxed).to_le_bytes();
        let mut text_at = at + 3;
        let [path, method, pool] =
            [(0, PATTERN_BYTES), (1, METHOD_BYTES), (2, POOL_BYTES)].map(|(index, room)| {
                let length = u16::from_le_bytes([lengths[2 * index], lengths[2 * index + 1]]);
                let length = usize::from(length).min(room);
                let words = self.words.slice(text_at, room / 8)?;
                text_at += room / 8;
                let mut bytes: Vec<u8> = words
                    .iter()
                    .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
                    .collect();
                bytes.truncate(length);
                String::from_utf8(bytes).ok()
            });
        let said = |text: Option<String>| Some(text?).map(|text| (!text.is_empty()).then_some(text));
        Some(Raised {
            which: Which {
                path: said(path)?.map(|path| Glob::new(&path)).transpose().ok()?,
                method: said(method)?,
            },
            pool: said(pool)?,
            ratio: f64::from_bits(self.load(at + 1, Ordering::Relaxed)),
            until_mono_ns: self.load(at, Ordering::Relaxed),
        })
    }

    fn load(&self, index: usize, order: Ordering) -> u64 {
        self.words.get(index).map_or(0, |word| word.load(order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str, pool: Option<&str>, until_mono_ns: u64) -> Raised {
        Raised {
            which: Which {
                path: Some(Glob::new(path).expect("a pattern")),
                method: None,
            },
            pool: pool.map(str::to_owned),
            ratio: 1.0,
            until_mono_ns,
        }
    }

    #[test]
    fn rules_come_change_and_end() {
        let page = RaisedPage::create().expect("a page");
        let mut www = RaisedRules::map(page.file(), "www").expect("maps");
        let mut shop = RaisedRules::map(page.file(), "shop").expect("maps");
        let id = TraceId([0xff; 16]);
        assert!(!www.is_any() && !www.sample(b"GET", b"/a", &id, 1));
        page.publish(&[rule("/a*", Some("WWW"), 100), rule("/b", None, 50)]);
        assert!(www.is_any() && shop.is_any());
        assert!(www.sample(b"GET", b"/ab", &id, 99) && !www.sample(b"GET", b"/ab", &id, 100));
        assert!(!shop.sample(b"GET", b"/ab", &id, 1) && shop.sample(b"GET", b"/b", &id, 49));
        page.publish(&[Raised {
            ratio: 0.0,
            which: Which {
                method: Some("POST".to_owned()),
                ..Which::default()
            },
            ..rule("/", None, 100)
        }]);
        assert!(www.is_any() && !www.sample(b"POST", b"/ab", &id, 1));
        page.publish(&[]);
        assert!(!www.is_any());
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let page = RaisedPage::create().expect("a page");
        let mut rules = RaisedRules::map(page.file(), "www").expect("maps");
        let long = "p".repeat(POOL_BYTES + 1);
        let all: Vec<Raised> = (0..40).map(|_| rule("/a", None, 9)).collect();
        page.publish(&[&[rule("/long", Some(&long), 9)], &all[..]].concat());
        assert!(rules.is_any());
        assert_eq!(rules.rules.len(), MOST_RAISED);
        let longest = Glob::new(&format!("/{}", "x".repeat(PATTERN_BYTES - 1))).expect("a pattern");
        let full = Raised {
            which: Which {
                path: Some(longest),
                method: Some("M".repeat(METHOD_BYTES)),
            },
            ..rule("/", Some("www"), u64::MAX)
        };
        page.publish(std::slice::from_ref(&full));
        assert!(rules.is_any());
        assert_eq!(rules.rules, [full]);
    }

    #[test]
    fn nobody_else_can_write_to_the_page() {
        let page = RaisedPage::create().expect("a page");
        assert!(rustix::io::pwrite(page.file(), &[1; 8], 0).is_err());
        assert!(rustix::fs::ftruncate(page.file(), 0).is_err());
        assert!(Words::map(page.file(), PAGE_BYTES, true).is_err());
        page.publish(&[rule("/a", None, 1)]);
    }

    #[test]
    fn a_reader_beside_a_writer_sees_only_whole_sets() {
        let page = RaisedPage::create().expect("a page");
        let mut rules = RaisedRules::map(page.file(), "www").expect("maps");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..20_000u64 {
                    let count = usize::try_from(n % 7).expect("small") + 1;
                    page.publish(&vec![rule("/a", None, n); count]);
                }
            });
            while !writer.is_finished() {
                if rules.is_any() {
                    let until = rules.rules[0].until_mono_ns;
                    assert!(rules.rules.iter().all(|rule| rule.until_mono_ns == until));
                    assert_eq!(rules.rules.len() as u64, until % 7 + 1);
                }
            }
        });
    }
}
