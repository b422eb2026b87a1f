//! What `glasspool trace` asks of a supervisor: the words that both of them know.

use glasspool_abi::trace::sampling::{Glob, METHOD_BYTES, Which};
use serde::{Deserialize, Serialize};

/// What stands before the order on the control socket; the order is JSON.
pub(crate) const PREFIX: &[u8] = b"trace ";
/// Longest time for which a rule can be raised: a day.
pub(crate) const MOST_SECONDS: u64 = 24 * 60 * 60;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// A rule for some requests.
    Raise(Raise),
    /// The rules in force.
    List,
    /// None any more.
    Clear,
}

/// A rule as it is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Raise {
    pub(crate) path: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) pool: Option<String>,
    pub(crate) ratio: f64,
    pub(crate) seconds: u64,
}

impl Raise {
    /// Which requests are meant, if it makes sense.
    pub(crate) fn which(&self) -> Result<Which, String> {
        if !(0.0..=1.0).contains(&self.ratio) {
            return Err(format!("{} is no ratio; a number from 0 to 1 is", self.ratio));
        }
        let path = self.path.as_deref().map(Glob::new).transpose();
        let method = self.method.clone();
        if method
            .as_ref()
            .is_some_and(|method| !(1..=METHOD_BYTES).contains(&method.len()))
        {
            return Err(format!("a method has 1 to {METHOD_BYTES} bytes"));
        }
        Ok(Which {
            path: path.map_err(|why| why.to_string())?,
            method,
        })
    }

    /// For how long.
    pub(crate) fn seconds(&self) -> Result<u64, String> {
        match self.seconds {
            1..=MOST_SECONDS => Ok(self.seconds),
            _ => Err("a rule can be raised for one second to 24 hours".to_owned()),
        }
    }
}
