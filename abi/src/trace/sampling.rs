//! Head sampling: the standard samplers, and rules for some requests. Decided in the
//! worker, before PHP runs; without memory and without a system call.

use serde::{Deserialize, Serialize};

use super::TraceId;

/// Longest pattern of a path in bytes.
pub const PATTERN_BYTES: usize = 128;
/// Longest method of a rule in bytes.
pub const METHOD_BYTES: usize = 32;
/// What a pattern is compared with of a longer path; what a record keeps of it.
const PATH_BYTES: usize = 1024;

/// How a worker decides whether a request is sampled; the standard samplers of the
/// OpenTelemetry specification (`OTEL_TRACES_SAMPLER`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampler {
    /// Follow the caller's decision when there is one.
    pub parent_based: bool,
    /// Share of the traces, 0.0 to 1.0, sampled where the caller does not decide.
    pub ratio: f64,
}

impl Default for Sampler {
    /// `parentbased_always_on`, the specification's default.
    fn default() -> Self {
        Sampler {
            parent_based: true,
            ratio: 1.0,
        }
    }
}

impl Sampler {
    /// Decides for one request; `caller` is what its caller has decided.
    pub fn sample(&self, caller: Option<bool>, trace_id: &TraceId) -> bool {
        match caller {
            Some(decided) if self.parent_based => decided,
            Some(_) | None => is_within(self.ratio, trace_id),
        }
    }
}

/// Whether a trace is within that share of all traces. Like `TraceIdRatioBased`, this is
/// taken from the trace id's last eight bytes, so every service decides alike.
pub fn is_within(ratio: f64, trace_id: &TraceId) -> bool {
    if ratio >= 1.0 {
        return true;
    }
    let [.., a, b, c, d, e, f, g, h] = trace_id.0;
    let low = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the ratio is clamped to 0..1, so the product fits"
    )]
    let bound = (ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64;
    low < bound
}

/// A pattern for paths: `*` stands for any characters, slashes too, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Glob(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path pattern starts with / or *, has 1 to {PATTERN_BYTES} bytes and no blanks or control characters"
)]
pub struct NoPattern;

impl Glob {
    /// A pattern of this text.
    ///
    /// # Errors
    /// See [`NoPattern`].
    pub fn new(text: &str) -> Result<Glob, NoPattern> {
        let is_good = text.starts_with(['/', '*'])
            && text.len() <= PATTERN_BYTES
            && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        is_good.then(|| Glob(text.to_owned())).ok_or(NoPattern)
    }

    /// A pattern for names, which may begin with any character.
    ///
    /// # Errors
    /// As [`NoPattern`] says, but for how it starts; and if it is empty.
    pub fn of_names(text: &str) -> Result<Glob, NoPattern> {
        let is_good = (1..=PATTERN_BYTES).contains(&text.len())
            && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        is_good.then(|| Glob(text.to_owned())).ok_or(NoPattern)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path fits, of which the first 1024 bytes count. Only the last star met
    /// ever takes more, so that at most pattern times path bytes are compared.
    pub fn matches(&self, path: &[u8]) -> bool {
        let path = &path[..path.len().min(PATH_BYTES)];
        let pattern = self.0.as_bytes();
        let (mut at, mut here) = (0, 0);
        // Behind the last star, and where in the path what follows it is tried.
        let mut star = None;
        while let Some(byte) = path.get(here) {
            match (pattern.get(at), star) {
                (Some(b'*'), _) => {
                    at += 1;
                    star = Some((at, here));
                }
                (Some(wanted), _) if wanted == byte || *wanted == b'?' => {
                    at += 1;
                    here += 1;
                }
                (_, Some((behind, tried))) => {
                    at = behind;
                    here = tried + 1;
                    star = Some((behind, here));
                }
                (_, None) => return false,
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> String {
        glob.0
    }
}

/// What another process sends is at least a pattern for names.
impl TryFrom<String> for Glob {
    type Error = NoPattern;

    fn try_from(text: String) -> Result<Glob, NoPattern> {
        Glob::of_names(&text)
    }
}

/// Which requests something is for; all of them if nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// By path.
    pub path: Option<Glob>,
    /// By method, exactly.
    pub method: Option<String>,
}

impl Which {
    /// Whether a request is meant.
    pub fn matches(&self, method: &[u8], path: &[u8]) -> bool {
        self.method
            .as_ref()
            .is_none_or(|wanted| wanted.as_bytes() == method)
            && self.path.as_ref().is_none_or(|glob| glob.matches(path))
    }
}

/// `[[trace.rule]]`: another share for some requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Which.
    pub which: Which,
    /// Share of them where the caller does not decide.
    pub ratio: f64,
}

/// `[[trace.route]]`: what some requests are called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Which.
    pub which: Which,
    /// `http.route` of these.
    pub route: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(count: u64) -> impl Iterator<Item = TraceId> {
        (0..count).map(|n| {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
            TraceId(id)
        })
    }

    #[test]
    fn the_standard_samplers() {
        let sampler = |parent_based, ratio| Sampler { parent_based, ratio };
        let id = TraceId([0x80; 16]);
        let (yes, no, none) = (Some(true), Some(false), None);
        for (name, sampler, expected) in [
            ("always_on", sampler(false, 1.0), [true, true, true]),
            ("always_off", sampler(false, 0.0), [false, false, false]),
            ("parentbased_always_on", sampler(true, 1.0), [true, false, true]),
            ("parentbased_always_off", sampler(true, 0.0), [true, false, false]),
        ] {
            let found = [yes, no, none].map(|caller| sampler.sample(caller, &id));
            assert_eq!(found, expected, "{name}");
        }
        for parent_based in [false, true] {
            let sampler = sampler(parent_based, 0.25);
            let sampled = ids(40_000).filter(|id| sampler.sample(None, id)).count();
            assert!((9_000..11_000).contains(&sampled), "{sampled}");
        }
    }

    #[test]
    fn a_trace_that_a_small_share_takes_a_larger_one_takes_too() {
        for id in ids(10_000) {
            assert!(!is_within(0.1, &id) || is_within(0.2, &id));
            assert!(!is_within(0.0, &id) && is_within(1.0, &id));
        }
    }

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/checkout*", "/checkout", true),
            ("/checkout*", "/checkout/pay/42", true),
            ("/checkout*", "/Checkout", false),
            ("/checkout", "/checkout/", false),
            ("/user/*/edit", "/user/42/edit", true),
            ("/user/*/edit", "/user/42/edit/7/edit", true),
            ("/user/*/edit", "/user/42/show", false),
            ("*.php", "/a/b.php", true),
            ("*.php", "/a/b.php/c", false),
            ("/v?/x", "/v1/x", true),
            ("/v?/x", "/v/x", false),
            ("*", "", true),
            ("/", "", false),
            ("/a**b*", "/ab", true),
        ] {
            let glob = Glob::new(pattern).expect("a pattern");
            assert_eq!(glob.matches(path.as_bytes()), expected, "{pattern} {path}");
        }
        for bad in [
            "",
            "checkout",
            "/a b",
            "/a\n",
            &format!("/{}", "a".repeat(PATTERN_BYTES)),
        ] {
            assert_eq!(Glob::new(bad), Err(NoPattern), "{bad:?}");
        }
    }

    #[test]
    fn which_requests() {
        let which = Which {
            path: Some(Glob::new("/a*").expect("a pattern")),
            method: Some("POST".to_owned()),
        };
        assert!(which.matches(b"POST", b"/ab"));
        assert!(!which.matches(b"GET", b"/ab") && !which.matches(b"POST", b"/b"));
        assert!(Which::default().matches(b"", b""));
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_the_plain_definition(pattern in "[/*][ab*?]{0,8}", path in "/[ab]{0,8}") {
            fn plain(pattern: &[u8], path: &[u8]) -> bool {
                match (pattern, path) {
                    ([], path) => path.is_empty(),
                    ([b'*', rest @ ..], path) => (0..=path.len()).any(|skip| plain(rest, &path[skip..])),
                    ([b'?', rest @ ..], [_, path @ ..]) => plain(rest, path),
                    ([wanted, rest @ ..], [byte, path @ ..]) => wanted == byte && plain(rest, path),
                    (_, []) => false,
                }
            }
            let glob = Glob::new(&pattern).expect("a pattern");
            prop_assert_eq!(glob.matches(path.as_bytes()), plain(pattern.as_bytes(), path.as_bytes()));
        }
    }
}
